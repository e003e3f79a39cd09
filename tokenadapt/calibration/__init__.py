"""Minutes of training on the rows of a transplanted checkpoint: the student learns to say what its source says.

    told = calibrate(CalibrationOptions("smollm2-qwen3", "out", data=("texts/",), tokens=200_000), progress)
    told.source, told.before, told.after      # held-out bits per byte

The road: options -> pair -> class (one body, two tables) -> data (examples cut at shared positions) -> lesson
(objectives) -> loop -> result.
"""
