"""The zoo's results as JSON, as a table, and as a summary in words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def write(path: Path, rows: list[Row], about: dict[str, Any]) -> None:
    """Write the results so far as JSON and as a table."""
    path.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    if path.name == "zoo.json":
        path.with_suffix(".md").write_text(table(rows, about, path.with_name("zoo_torch_pruning.json")))


def beside(rows: list[Row], path: Path) -> str:
    """Return a summary of torch-pruning's results, which are read from `path`."""
    if not path.is_file():
        return "torch-pruning was not run."
    other = json.loads(path.read_text())
    cut = {(row["source"], row["name"]): row["seconds"] for row in other["rows"] if row["status"] == "pass"}
    both = [row for row in rows if row["status"] == "pass" and (row["source"], row["name"]) in cut]
    theirs, ours = sum(cut[row["source"], row["name"]] for row in both), sum(map(seconds, both))
    exports = sum(row["export_s"] for row in both)
    return (
        f"torch-pruning 1.6.1 with its documented defaults, on {len(other['rows'])} of these networks, "
        f"{other['about']['limit']}: {len(cut)} pass. On the {len(both)} that both pass it takes {theirs:.0f} s, "
        f"Prunus {ours:.0f} s; torch.export alone takes {exports:.0f} s."
    )


def table(rows: list[Row], about: dict[str, Any], other: Path) -> str:
    """Return the results as Markdown, with torch-pruning's results from the file `other`."""
    facts = "\n".join(f"- {name}: {value}" for name, value in about.items())
    columns = "| network | source | result | max rel. diff. | conv | exact | approx. | refused | params M | kept M | "
    columns += "GMACs | export s | trace s | cut s | nodes | commit | reason |"
    lines = [columns, "|" + "---|" * 17, *(table_line(row) for row in rows)]
    return f"# The zoo\n\n{totals(rows)}\n\n{beside(rows, other)}\n\n{facts}\n\n" + "\n".join(lines) + "\n"


def table_line(row: Row) -> str:
    """Return one network's line of the table."""
    reason = row["reason"].replace("|", "/").replace("\n", " ")[:160]
    if "groups" not in row:
        return f"| {row['name']} | {row['source']} | {row['status']} |" + " |" * 13 + f" {reason} |"
    share = "" if row["conv_share"] is None else f"{row['conv_share']:.0%}"
    cells = [row["name"], row["source"], row["status"], f"{row['max_rel_diff']:.1e}", share]
    cells += [row["exact"], row["approximate"], row["refused"]]
    cells += [f"{row['params'] / 1e6:.1f}", f"{row['params_after'] / 1e6:.1f}", f"{row['macs'] / 1e9:.2f}"]
    cells += [f"{row[key]:.2f}" for key in ("export_s", "trace_s", "cut_s")]
    return "| " + " | ".join(str(cell) for cell in [*cells, row["nodes"], row["commit"], reason]) + " |"


def totals(rows: list[Row]) -> str:
    """Return how many networks pass, in total and by source, and which exceed the bounds."""
    passed = [row for row in rows if row["status"] == "pass"]
    sources = dict.fromkeys(row["source"] for row in rows)
    counts = [
        f"{source} {sum(r['source'] == source for r in passed)} of {sum(r['source'] == source for r in rows)}"
        for source in sources
    ]
    read = [row for row in rows if "groups" in row]
    lines = [f"{len(passed)} of {len(rows)} networks pass ({', '.join(counts)})."]
    if not read:  # torch-pruning's rows only hold whether it passed, and its seconds
        return lines[0]
    for what, (concerns, holds) in BOUNDS.items():
        concerned = [row for row in read if concerns(row)]
        beyond = ", ".join(row["name"] for row in concerned if not holds(row))
        num = sum(map(holds, concerned))
        lines.append(f"{what}: {num} of {len(concerned)}" + (f", not {beyond}." if beyond else "."))
    small = [row for row in read if row["peak_mb"] >= 3 * row["model_mb"]]
    beside = [row for row in small if row["export_mb"] < 3 * row["model_mb"]]
    lines.append(
        f"Of the {len(small)} that hold more, which weigh {max((r['model_mb'] for r in small), default=0)} MB at most, "
        f"{len(small) - len(beside)} do so after torch.export alone; not {', '.join(r['name'] for r in beside)}."
    )
    convs = [row for row in read if row["cnn"] and row["conv_share"] is not None]
    exactly = sum(row["conv_share"] * row["conv_params"] for row in convs) / sum(row["conv_params"] for row in convs)
    lines.append(
        f"Of all {len(convs)} CNNs' convolutions together, {exactly:.1%} of the parameters lie in such groups."
    )
    return "\n\n".join(lines)


def seconds(row: Row) -> float:
    """Return the seconds of trace, select and apply together."""
    return float(row["trace_s"] + row["cut_s"])


BOUNDS: dict[str, tuple[Callable[[Row], bool], Callable[[Row], bool]]] = {  # text: (concerned rows, condition)
    "Up to 100 M parameters, reading, selecting and cutting takes at most 6 s": (
        lambda row: row["params"] <= 100e6,
        lambda row: seconds(row) <= 6,
    ),
    "... and at most 2.5 times torch.export's own time": (
        lambda row: row["params"] <= 100e6,
        lambda row: seconds(row) <= 2.5 * row["export_s"],
    ),
    "The memory taken beside the model stays below three times the model's": (
        lambda row: True,
        lambda row: row["peak_mb"] < 3 * row["model_mb"],
    ),
    "Of a CNN's convolutions, at least 90 % of the parameters lie in exactly removable groups": (
        lambda row: row.get("cnn", False) and row["conv_share"] is not None,
        lambda row: row["conv_share"] >= 0.9,
    ),
}


def line(row: Row) -> str:
    """Return one line for the screen."""
    if "groups" not in row:
        return f"{row['name']:36} {row['status']:8} {row['reason'][:150]}"
    share = "   -" if row["conv_share"] is None else f"{row['conv_share']:4.0%}"
    times = f"export {row['export_s']:5.2f} trace {row['trace_s']:5.2f} cut {row['cut_s']:5.2f} s"
    counts = f"{row['exact']:6} exact {row['approximate']:6} approx {row['refused']:6} refused"
    head = f"{row['name']:36} {row['status']:8} {row['max_rel_diff']:8.1e} conv {share}"
    return f"{head} {counts} {times} {row['reason'][:90]}"
