"""Files of a hub repository that lie in folders: those that a model needs, and no others."""

from tests.unit.test_data_hub import Hub, hub, run  # noqa: F401 (fixtures)


def test_what_a_model_needs_below_its_top_is_fetched_and_nothing_else(hub, run, tiny_model, tmp_path):  # noqa: F811
    """An encoder without its pooling is refused; other formats of the weights are gigabytes."""
    needed = {"1_Pooling/config.json": b"{}", "additional_chat_templates/tools.jinja": b"{{ 1 }}", "tekken.json": b"{}"}
    names = ("onnx/model.safetensors", "onnx/config.json", "1_Pooling/deeper/config.json", "original/tokenizer.model")
    unwanted = dict.fromkeys(names, b"never fetched")
    Hub.files = {path.name: path.read_bytes() for path in tiny_model.iterdir()} | needed | unwanted
    for output, settings in (("one", {"HF_ENDPOINT": hub}), ("two", {"HF_HUB_OFFLINE": "1"})):
        run("fetch-model", "--source", "me/open", "--output", tmp_path / output, **settings)
        for name, data in needed.items():
            assert (tmp_path / output / name).read_bytes() == data
        assert not (tmp_path / output / "onnx").exists()
    fetched = {path.rpartition("/resolve/")[2].partition("/")[2] for path, _ in Hub.asked if "/resolve/" in path}
    assert needed.keys() < fetched
    assert not fetched & unwanted.keys()
