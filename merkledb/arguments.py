"""What callers pass to public functions and constructors, checked where it comes in.

A wrong argument would otherwise fail later, in another place, with an error of Python's or of a library below
that says nothing of the argument.  Each check here raises ``TypeError`` or ``ValueError`` with the name of
the argument and what is wanted.  The packages above this one use the same checks.  Flags are not checked: any
object is true or false.
"""


def require_instance(name: str, value: object, kind: type) -> None:
    """Raise TypeError unless ``value``, which ``name`` names, is of a class."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is a {kind.__name__}, not {type(value).__name__}")


def require_callable(name: str, value: object) -> None:
    """Raise TypeError unless ``value``, which ``name`` names, can be called."""
    if not callable(value):
        raise TypeError(f"{name} is a function, not {type(value).__name__}")


def require_bytes(name: str, value: object) -> None:
    """Raise TypeError unless ``value``, which ``name`` names, is bytes: not text, nor what may change."""
    if type(value) is not bytes:
        raise TypeError(f"{name} is bytes, not {type(value).__name__}: encode text, and copy what may change")


def require_whole(name: str, value: object) -> int:
    """Return ``value``, which ``name`` names, as the int that it is.

    Raises:
        TypeError: It is not an int; True and False are none.
    """
    if type(value) is not int:
        raise TypeError(f"{name} is a whole number, not {type(value).__name__}")
    return value


def require_int(name: str, value: object, least: int, most: int | None = None) -> None:
    """Raise unless ``value``, which ``name`` names, is a whole number from ``least`` to ``most``.

    Raises:
        TypeError: As ``require_whole``.
        ValueError: It is below ``least``, or above ``most``, where there is one.
    """
    number = require_whole(name, value)
    if number < least:
        raise ValueError(f"{name} is at least {least}, not {number}")
    if most is not None and number > most:
        raise ValueError(f"{name} is at most {most}, not {number}")


def require_number(name: str, value: object) -> float:
    """Return ``value``, which ``name`` names, as the number that it is; infinity is one, and so is NaN.

    Raises:
        TypeError: It is neither an int nor a float; True and False are none.
    """
    if type(value) is not int and type(value) is not float:
        raise TypeError(f"{name} is a number, not {type(value).__name__}")
    return value
