"""What the Python applications print: one line per step, the same for every run that gets the same answers.

Nothing that depends on time, process ids, OIDs or the database's name may be printed; `digest` shortens what is long.
"""

import hashlib

VIEWS = 300


def out(step, *values):
    print(f"{step}: " + " | ".join(str(value) for value in values), flush=True)


def digest(values):
    hashed = hashlib.sha256()
    for value in values:
        hashed.update(repr(value).encode())
    return hashed.hexdigest()[:16]


def driver_error(error):
    """Returns the driver's own error below an ORM's."""
    found = error
    while True:
        below = getattr(found, "orig", None) or found.__cause__
        if below is None or not isinstance(below, Exception):
            return found
        found = below


def failure(error):
    """Returns the ORM's class of an error, and what PostgreSQL said about it."""
    below = driver_error(error)
    diag = getattr(below, "diag", None)
    if diag is not None:
        said = (diag.severity, diag.message_primary, diag.message_detail, diag.message_hint, diag.constraint_name)
        state = getattr(below, "sqlstate", None)
    else:
        names = ("severity", "message", "detail", "hint", "constraint_name")
        said = tuple(getattr(below, name, None) for name in names)
        state = getattr(below, "sqlstate", None)
    return " / ".join([type(error).__name__, type(below).__name__, str(state), *map(str, said)])


def run_views(views):
    """Runs the views in turn, `VIEWS` of them, and prints a digest of what each gave."""
    answers = {view.__name__: [] for view in views}
    for number in range(VIEWS):
        view = views[number % len(views)]
        answers[view.__name__].append(view(number))
    for name, given in answers.items():
        out(f"view {name}", len(given), digest(given), repr(given[0])[:120])


def run_steps(steps):
    """Runs each step even if one before it failed, so that one run shows all that is different."""
    for step in steps:
        try:
            step()
        except Exception as error:  # noqa: BLE001: whatever it is, it is printed
            out(step.__name__, "FAILED", failure(error))
