"""Arguments that several commands take."""

from typing import Annotated

import typer

JobUuid = Annotated[str, typer.Argument(metavar="UUID", help="The job's uuid.", show_default=False)]
JobUuids = Annotated[list[str], typer.Argument(metavar="UUID...", help="The jobs' uuids.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
