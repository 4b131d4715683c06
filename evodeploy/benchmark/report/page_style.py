"""The style of the report's page, in light and dark, and its one control, which needs no script."""

from __future__ import annotations

from collections.abc import Sequence

from evodeploy.benchmark.report.svg import element

_LIGHT = ("#3d6fd1", "#d1495b", "#2a9d6f", "#c77f0a", "#7a52c7", "#12879c", "#a3572b", "#b8458f", "#5f7a1f", "#6b7280")
_DARK = ("#7aa5ff", "#ff8593", "#54cf9d", "#f0b24a", "#b295f5", "#4fc3d9", "#d99166", "#ee8ac8", "#a5c453", "#a3abb8")
COLOURS = len(_LIGHT)  # further series use them again


def _palette(colours: Sequence[str]) -> str:
    return "".join(f"--c{i}:{colour};" for i, colour in enumerate(colours))


STYLE = (
    ":root{--ink:#1b1f27;--soft:#5b6472;--line:#dfe3e9;--paper:#fff;--card:#f7f8fa;--bad:#b3152b;"
    + _palette(_LIGHT)
    + "}@media(prefers-color-scheme:dark){:root{--ink:#e8ebf0;--soft:#9ea7b5;--line:#343b47;--paper:#14171c;"
    + "--card:#1c2027;--bad:#ff7b8a;"
    + _palette(_DARK)
    + "}}"
    + "".join(f".c{i}{{--c:var(--c{i})}}" for i in range(COLOURS))
    + """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;margin:0;overflow-wrap:anywhere}h2{font-size:19px;margin:36px 0 10px}h3{font-size:15px;margin:0}
.machine{color:var(--soft);margin:2px 0 16px}
.headlines{padding-left:18px;margin:0}.headlines li:first-child{font-weight:600}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(480px,100%),1fr));gap:16px;align-items:start}
figure{margin:0;padding:14px 16px;background:var(--card);border:1px solid var(--line);border-radius:8px;min-width:0}
figcaption p{margin:0 0 6px;color:var(--soft);font-size:13px}
svg{width:100%;max-width:680px;height:auto;display:block}
svg text{fill:var(--ink);font:12px system-ui,sans-serif}svg .tick,svg .note{fill:var(--soft)}
svg .note,svg .name{paint-order:stroke;stroke:var(--card);stroke-width:3px}
.grid{stroke:var(--line)}.mark{stroke:var(--soft);stroke-dasharray:2 3}.limit{stroke:var(--ink);stroke-width:1.5}
.line{fill:none;stroke:var(--c);stroke-width:2}.line.twin{stroke-dasharray:5 4;stroke-width:1.5}
.whisker{stroke:var(--c);stroke-width:1.5}
.point{fill:var(--c);stroke:var(--c);stroke-width:1.5}.point.twin{fill:var(--card)}
.dots{fill:none;stroke:var(--c);stroke-width:4;stroke-linecap:round;opacity:.45}
.median{stroke:var(--ink);stroke-width:2}
.bar{fill:var(--c)}.bar.twin{opacity:.5}
svg g:focus{outline:none}svg g:focus-visible{outline:2px solid var(--ink);outline-offset:2px}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;padding:0;margin:0 0 10px;font-size:13px}
.swatch{display:inline-block;width:12px;height:12px;border-radius:3px;background:var(--c);margin-right:6px}
details{margin-top:8px;font-size:13px}summary{cursor:pointer;color:var(--soft)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:3px 12px 3px 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:600}.rows td:nth-child(2),.rows td:nth-child(3),.rows th:nth-child(2),.rows th:nth-child(3),
details td:first-child,details th:first-child{text-align:left}
details table{display:block;overflow-x:auto}
tr.wrong td{color:var(--bad);font-weight:600}tr.missing td{color:var(--soft)}
.cautions li{margin-bottom:4px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;font-size:13px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.switch{border:0;margin:0;padding:0;min-width:0}.switch legend{color:var(--soft);font-size:13px;padding:0}
.switch label{display:inline-block;margin:4px 14px 10px 4px}.switch .panel{display:none}
@media(max-width:520px){dl{grid-template-columns:1fr}dt{margin-top:6px}
figure{overflow-x:auto}figure svg{width:450px}figcaption,figure h3,figure details{position:sticky;left:0}}
@media print{.switch .panel{display:block!important}}
"""
)


def batch_switch(batches: Sequence[int], panels: Sequence[str]) -> str:
    """Return `panels` with radio buttons, which the arrow keys reach, to show one at a time: at first the last."""
    controls, rules = [], []
    for number, batch in enumerate(batches):
        checked = {"checked": "checked"} if number == len(batches) - 1 else {}
        controls.append(element("input", type="radio", name="batch", id=f"batch-{number}", **checked))
        controls.append(element("label", str(batch), for_=f"batch-{number}"))
        rules.append(f"#batch-{number}:checked~#panel-{number}{{display:block}}")
    shown = [element("div", panel, class_="panel", id=f"panel-{number}") for number, panel in enumerate(panels)]
    legend = element("legend", "batch")
    return element("style", *rules) + element("fieldset", legend, *controls, *shown, class_="switch")
