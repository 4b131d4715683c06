"""A bench as one HTML page with plots, without scripts or external resources."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from evodeploy.benchmark.measure.intervals import Interval
from evodeploy.benchmark.report.charts import Lane, Series, bars, dots, lines
from evodeploy.benchmark.report.page_style import COLOURS, STYLE, batch_switch
from evodeploy.benchmark.report.report import Report, cautions, headlines
from evodeploy.benchmark.report.speedups import over_dense
from evodeploy.benchmark.report.svg import element
from evodeploy.benchmark.report.table import filled_columns
from evodeploy.benchmark.row import Row
from evodeploy.benchmark.stages import STAGES
from evodeploy.machine.environment import Environment


def as_html(report: Report) -> str:
    """Return the whole page."""
    timed = [row for row in report.rows if row.timing]
    colours = {name: f"c{i % COLOURS}" for i, name in enumerate(dict.fromkeys(report.name(row) for row in timed))}
    batches = list(dict.fromkeys(row.asked for row in timed))
    machine = report.environment
    body = [
        element("h1", escape(report.subject.name)),
        element("p", escape(f"{machine.processor}, {machine.threads} threads"), *_gpus(machine), class_="machine"),
        _list(headlines(report), "headlines"),
    ]
    if timed:
        body += [
            element("h2", "Speed"),
            _legend(colours),
            element("div", _throughput(report, timed, colours), _selection(report, timed, colours), class_="plots"),
            element("h2", "Each batch"),
            batch_switch(batches, [_of_batch(report, timed, batch, colours) for batch in batches]),
        ]
    if any(stages.seconds for stages in report.end_to_end):
        body += [element("h2", "From files to labels"), element("div", _end_to_end(report), class_="plots")]
    body += [element("h2", "All rows"), _rows(report)]
    found = list(cautions(report))
    if found:
        body += [element("h2", "Cautions"), _list(found, "cautions")]
    body += [element("h2", "How and on what"), *_method(report)]
    return document(f"{report.subject.name}: bench", body)


def document(title: str, body: Sequence[str]) -> str:
    """Return a self-contained page with the elements of `body`."""
    head = [
        '<meta charset="utf-8"><meta name="generator" content="evodeploy">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        element("title", escape(title)),
        element("style", STYLE),
    ]
    content = element("head", *head) + element("body", element("main", *body))
    return "<!doctype html>\n" + element("html", content, lang="en") + "\n"


def _lane_name(report: Report, row: Row) -> str:
    return report.name(row) + (", dense" if row.spec.role == "dense" else "")


def _throughput(report: Report, timed: Sequence[Row], colours: dict[str, str]) -> str:
    series = _series(report, timed, colours, {row: row.images_per_second for row in timed})
    table = [[_lane_name(report, r), str(r.batch), _in_words(r.images_per_second, 1)] for r in timed]
    return _figure(
        "Throughput by batch",
        "Images per second at the median run, higher is better. Solid: the model; dashed: its dense twin.",
        lines("Images per second by batch", "img/s", series),
        (("row", "batch", "img/s (95 %)"), table),
    )


def _selection(report: Report, timed: Sequence[Row], colours: dict[str, str]) -> str:
    ratios = {row: over_dense(row, report.rows) for row in timed}
    series = _series(report, timed, colours, ratios)
    if not series:
        return ""
    table = [[report.name(row), str(row.batch), _in_words(ratio, 2)] for row, ratio in ratios.items() if ratio]
    return _figure(
        "What selection is worth",
        "Throughput over that of the dense twin on the same engine, round by round. Above the line selection pays.",
        lines("Throughput over the dense twin's, by batch", "×", series, mark=1.0),
        (("row", "batch", "× dense (95 %)"), table),
    )


def _series(
    report: Report, timed: Sequence[Row], colours: dict[str, str], values: dict[Row, Interval | None]
) -> list[Series]:
    points: dict[tuple[str, bool], list[tuple[int, Interval]]] = {}
    for row in timed:
        value = values[row]
        if value is not None:
            points.setdefault((report.name(row), row.spec.role == "dense"), []).append((row.batch, value))
    return [
        Series(name + (", dense" if twin else ""), colours[name], sorted(taken, key=lambda point: point[0]), twin)
        for (name, twin), taken in points.items()
    ]


def _of_batch(report: Report, timed: Sequence[Row], batch: int, colours: dict[str, str]) -> str:
    rows = [row for row in timed if row.asked == batch]
    return element("div", _latencies(report, rows, colours), _limits(report, rows, colours), class_="plots")


def _latencies(report: Report, rows: Sequence[Row], colours: dict[str, str]) -> str:
    lanes, table = [], []
    for row in rows:
        if row.latency:
            samples = [sample * 1e3 for sample in row.latency.samples]
            twin = row.spec.role == "dense"
            lanes.append(Lane(_lane_name(report, row), colours[report.name(row)], samples, twin))
            known = (row.latency.median, row.latency.p90, row.latency.p99)
            table.append([_lane_name(report, row), *(f"{each * 1e3:.2f}" for each in known), str(len(samples))])
    if not lanes:
        return ""
    return _figure(
        f"Latency at batch {rows[0].asked}",
        "Every timed run of the whole batch, one in flight; the bar is the median. The axis is logarithmic.",
        dots(f"Latency at batch {rows[0].asked}", "ms", lanes),
        (("row", "median ms", "p90 ms", "p99 ms", "runs"), table),
    )


def _limits(report: Report, rows: Sequence[Row], colours: dict[str, str]) -> str:
    lanes, table = [], []
    for row in rows:
        achieved, share = row.operations_per_second, report.share_of_peak(row)
        if achieved is not None:
            note = "" if share is None else f"{share:.0%} of {row.arithmetic}"
            twin = row.spec.role == "dense"
            name = _lane_name(report, row)
            lanes.append(Lane(name, colours[report.name(row)], [achieved / 1e9], twin, note))
            table.append([name, f"{achieved / 1e9:.0f}", "–" if share is None else f"{share:.0%}"])
    if not lanes:
        return ""
    peaks = sorted(((f"{device} {precision}", peak / 1e9) for (device, precision), peak in report.peaks.items()),
                   key=lambda pair: -pair[1])  # fmt: skip
    return _figure(
        f"Speed and its limit at batch {rows[0].asked}",
        "GFLOP/s of the model's matrix products. Vertical lines: the fastest product this machine computes.",
        bars(f"Speed and its limit at batch {rows[0].asked}", "GFLOP/s", lanes, peaks),
        (("row", "GFLOP/s", "of peak"), table),
    )


def _end_to_end(report: Report) -> str:
    done = [stages for stages in report.end_to_end if stages.seconds]
    lanes = [
        Lane(
            stages.label,
            "",
            [stages.seconds[stage] * 1e3 for stage in STAGES],
            note=f"{stages.images_per_second:.0f} img/s, {stages.bottleneck}",
        )
        for stages in done
    ]
    table = [
        [stages.label, *(f"{stages.seconds[stage] * 1e3:.2f}" for stage in STAGES), f"{stages.images_per_second:.1f}"]
        for stages in done
    ]
    legend = _legend({stage: f"c{i}" for i, stage in enumerate(STAGES)})
    return _figure(
        f"One image, batch {done[0].batch}",
        "Stages run one after another, in one thread except inside the engine. Labels: the throughput, and the "
        "stage that takes longest.",
        legend + bars("Milliseconds of one image by stage", "ms", lanes),
        (("engine", *STAGES, "img/s"), table),
    )


def _figure(title: str, caption: str, plot: str, table: tuple[Sequence[str], Iterable[Sequence[str]]]) -> str:
    words = element("figcaption", element("h3", escape(title)), element("p", escape(caption)))
    numbers = element("details", element("summary", "As a table"), table_of(*table))
    return element("figure", words, plot, numbers)


def _rows(report: Report) -> str:
    filled = filled_columns(report)
    bodies = [[cells[number] for _, cells in filled] for number in range(len(report.rows))]
    classes = ["wrong" if row.wrong else "" if row.timing else "missing" for row in report.rows]
    return element(
        "div", table_of([column.heading for column, _ in filled], bodies, classes), class_="scroll rows", tabindex=0
    )


def _method(report: Report) -> list[str]:
    machine, budget = report.environment, report.budget
    words = (
        f"All rows ran in turn in one process, {budget.rounds} rounds at least, until every median was known to "
        f"{budget.precision:.1%} or a row had taken {budget.seconds:g} s on average. Ratios are medians over rounds, "
        "intervals hold the true median with 95 % confidence. FLOPs count the matrix products of the graph, a "
        "multiply-add as two; the peak is this machine's fastest product, measured after the bench, or the fastest row."
    )
    facts = {
        "processor": f"{machine.processor}, {machine.cores} cores, {machine.threads} threads used",
        "instruction sets": ", ".join(machine.flags),
        "caches": ", ".join(f"{name} {size}" for name, size in machine.caches.items()),
        "clock": " ".join(filter(None, (f"{machine.mhz:.0f} MHz" if machine.mhz else "", machine.governor))),
        "memory": f"{machine.memory_bytes / 1e9:.1f} GB" if machine.memory_bytes else "",
        "GPUs": ", ".join(f"{gpu.name} (driver {gpu.driver})" for gpu in machine.gpus),
        "system": f"{machine.system}, Python {machine.python}",
        "packages": ", ".join(f"{name} {version}" for name, version in machine.packages.items()),
        "evodeploy commit": machine.commit or "",
        "environment variables": ", ".join(f"{name}={value}" for name, value in machine.variables.items()),
        "started": machine.started,
        "notes": "; ".join(report.subject.notes),
    }
    listed = [element("dt", name) + element("dd", escape(value)) for name, value in facts.items() if value]
    return [element("p", escape(words)), element("dl", *listed)]


def _gpus(machine: Environment) -> list[str]:
    return [escape(f", {gpu.name}") for gpu in machine.gpus]


def _legend(colours: dict[str, str]) -> str:
    entries = [element("li", element("i", class_=f"swatch {colour}"), escape(n)) for n, colour in colours.items()]
    return element("ul", *entries, class_="legend")


def _list(items: Iterable[str], kind: str) -> str:
    return element("ul", *(element("li", escape(item)) for item in items), class_=kind)


def table_of(headings: Sequence[str], bodies: Iterable[Sequence[str]], classes: Sequence[str] = ()) -> str:
    """Return a table with a head and rows of cells. `classes` has one entry for each row."""
    head = element("tr", *(element("th", escape(heading), scope="col") for heading in headings))
    rows = [
        element("tr", *(element("td", escape(cell)) for cell in cells), class_=classes[number] if classes else "")
        for number, cells in enumerate(bodies)
    ]
    return element("table", element("thead", head), element("tbody", *rows))


def _in_words(interval: Interval | None, digits: int) -> str:
    if interval is None:
        return "–"
    return f"{interval.value:.{digits}f} ({interval.low:.{digits}f} to {interval.high:.{digits}f})"
