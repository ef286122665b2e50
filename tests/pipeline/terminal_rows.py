"""A terminal of the poorest kind, to see what people would see."""


def rows_of(shown: str) -> list[str]:
    """What stands on the screen after some output.

    A carriage return goes to the row's start, `ESC [ K` erases its rest.
    """
    rows: list[str] = []
    for line in shown.replace("\r\n", "\n").split("\n"):
        row = ""
        for part in line.split("\r"):
            text, erased, more = part.partition("\x1b[K")
            row = text + ("" if erased else row[len(text) :]) + more
        rows.append(row)
    return rows
