"""One exception for everything the user can mend, and the wrapper that turns it into one line and exit code
2.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable


class UserError(Exception):
    """Bad input. The message is one line that names the file or key and says what to do."""


EXIT_BAD_INPUT = 2


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Decorate a script's `main`: UserError -> one line on stderr and exit code 2, Ctrl-C -> 130."""

    @functools.wraps(main)
    def wrapped() -> None:
        try:
            main()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(EXIT_BAD_INPUT) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(130) from None

    return wrapped
