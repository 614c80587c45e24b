"""What can be measured of a variant; ``measurement`` is the one file shape, ``registry`` lists the tasks."""
