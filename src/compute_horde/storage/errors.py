"""What storage raises. Whoever catches it need not load a database's library (see ``translating``).

StorageError
├── DatabaseMisconfigured (a ValueError)   the URL, driver, login or schema cannot be used: an operator must act
├── AlreadyRunning                         another process holds what may be held only once
├── Unstorable (a ValueError)              PostgreSQL cannot hold the value: NUL in text, too long, too large
└── DatabaseUnavailable                    the database cannot be reached or cannot take it now; later it may
    └── DatabaseFull                       no room on its disk

A constraint that is violated stays SQLAlchemy's ``IntegrityError``: it is an answer, not a failure.
"""


class StorageError(Exception):
    """The root."""


class DatabaseMisconfigured(StorageError, ValueError):  # noqa: N818 - says what is wrong
    """The text says what to change; it never holds the password."""


class AlreadyRunning(StorageError):  # noqa: N818 - says what is wrong
    """Another process holds the name."""


class Unstorable(StorageError, ValueError):  # noqa: N818 - says what is wrong
    """What came from outside does not fit. SQLite takes most of it, so check input by what the columns hold."""


class DatabaseUnavailable(StorageError):  # noqa: N818 - says what is wrong
    """The transaction failed, and may succeed when it is tried again.

    Its effects are gone, save that a connection lost during the commit itself leaves open whether it was carried
    out: whoever tries again must be able to meet its own rows. ``code``: PostgreSQL's SQLSTATE or SQLite's result
    code, as text; empty where there is none.
    """

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


class DatabaseFull(DatabaseUnavailable):
    """The database has no room to write."""
