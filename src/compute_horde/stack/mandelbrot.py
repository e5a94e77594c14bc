"""The demonstration job: a Mandelbrot picture computed by awk in the container, and the same here to check it."""

from typing import NamedTuple

PALETTE = " .:-=+*#%@"


class View(NamedTuple):
    """What to draw. ``columns`` by ``rows`` characters, at most ``depth`` iterations each."""

    left: float = -2.2
    top: float = 1.2
    width: float = 3.2
    height: float = 2.4
    columns: int = 76
    rows: int = 24
    depth: int = 60

    def to_text(self) -> str:
        return " ".join(repr(value) for value in self) + "\n"


_AWK = r"""
NR == FNR { left=$1; top=$2; width=$3; height=$4; columns=$5; rows=$6; depth=$7; next }
{
  palette = $0; shades = length(palette)
  for (r = 0; r < rows; r++) {
    line = ""; y0 = top - height * r / (rows - 1)
    for (c = 0; c < columns; c++) {
      x0 = left + width * c / (columns - 1); x = 0; y = 0; n = 0
      while (x * x + y * y <= 4 && n < depth) { t = x * x - y * y + x0; y = 2 * x * y + y0; x = t; n++ }
      if (n == depth) inside++
      shade = int(n * (shades - 1) / depth)
      line = line substr(palette, shade + 1, 1); total += n
    }
    print line > "/artifacts/mandelbrot.txt"
  }
  printf "inside %d iterations %d\n", inside, total > "/output/summary.txt"
  printf "drew %d x %d points, %d of them inside the set\n", columns, rows, inside
}
"""

COMMAND = ["awk", _AWK, "/volume/view/view.txt", "/volume/palette.txt"]


def picture(view: View, palette: str) -> tuple[str, str]:
    """The picture and the summary line, as the job must return them."""
    lines, inside, total = [], 0, 0
    for r in range(view.rows):
        y0 = view.top - view.height * r / (view.rows - 1)
        counts = [
            _iterations(view.left + view.width * c / (view.columns - 1), y0, view.depth)
            for c in range(view.columns)
        ]
        lines.append("".join(palette[int(n * (len(palette) - 1) / view.depth)] for n in counts))
        inside += counts.count(view.depth)
        total += sum(counts)
    return "\n".join(lines) + "\n", f"inside {inside} iterations {total}\n"


def _iterations(x0: float, y0: float, depth: int) -> int:
    x = y = 0.0
    n = 0
    while x * x + y * y <= 4 and n < depth:
        x, y = x * x - y * y + x0, 2 * x * y + y0
        n += 1
    return n
