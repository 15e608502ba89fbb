"""The table of clients in docs/gateway.md, which the suite writes."""

from pathlib import Path

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "gateway.md"
HEAD = ("client", "version", "path", "chat", "picture", "stream", "structured", "forced tool")
BEGIN, END = "<!-- clients: written by make test-clients -->", "<!-- end of clients -->"


def write_rows(rows: dict[tuple[str, str], list[str]], page: Path = PAGE) -> None:
    """Put rows (client, path: the other cells) into the table; rows of other clients stay."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    table, _, after = rest.partition(END)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]
    known = {(row[0], row[2]): [row[1], *row[3:]] for row in cells} | rows
    lines = [HEAD, ("---",) * len(HEAD)]
    lines += [
        (name, values[0], path, *values[1:])
        for (name, path), values in sorted(known.items(), key=lambda row: row[0][0].casefold())
    ]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
