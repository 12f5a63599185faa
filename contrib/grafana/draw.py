#!/usr/bin/env python3
"""Draws migshare.json as SVG with what a Prometheus has scraped: every panel asks the queries that Grafana would ask.

    draw.py URL SECONDS > migshare.svg      URL of a Prometheus; the last SECONDS are shown

For the picture in the README, on a machine without Grafana. See record.py, which makes a node, its jobs and a Prometheus for it.
"""
import json, sys, time, urllib.parse, urllib.request
from html import escape
from pathlib import Path

COLUMN, ROW, GAP = 50, 30, 6
COLOURS = ["#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#b877d9", "#f2495c", "#8ab8ff", "#fade2a"]
BACK, PANEL, TEXT, DIM, GRID = "#111217", "#181b1f", "#d8d9da", "#8e8e8e", "#2c3235"
HIDDEN = {"__name__", "job", "instance", "mig_uuid", "cuda"}


def ask(url, path, **values):
    with urllib.request.urlopen(f"{url}/api/v1/{path}?{urllib.parse.urlencode(values)}", timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def text(x, y, what, size=11, fill=TEXT, anchor="start", weight="normal"):
    style = f'font-size="{size}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(str(what))}</text>'


def shown(value, unit):
    if unit == "percentunit":
        return f"{100 * value:.0f}%"
    if unit == "s":
        return f"{1000 * value:.3g} ms"
    return f"{value:.3g}"


def name(target, labels):
    legend = target.get("legendFormat") or ""
    for label, value in labels.items():
        legend = legend.replace("{{" + label + "}}", value).replace("{{ " + label + " }}", value)
    return legend or " ".join(value for label, value in sorted(labels.items()) if label not in HIDDEN) or "value"


def stat(box, series, unit):
    x, y, w, h = box
    value = shown(float(series[0][1]["value"][1]), unit) if series else "No data"
    return [text(x + w / 2, y + h / 2 + 20, value, 30, COLOURS[0], "middle", "bold")]


def lines(box, series, unit, begin, end):
    x, y, w, h = box
    left, top, right, bottom = x + 44, y + 30, x + w - 10, y + h - 34
    points = [float(v) for _, s in series for _, v in s["values"] if v != "NaN"]
    high = max(points, default=0) * 1.1 or 1
    out = []
    for part in range(5):
        at = bottom - (bottom - top) * part / 4
        out.append(f'<path d="M{left} {at:.1f}H{right}" stroke="{GRID}"/>')
        out.append(text(left - 4, at + 4, shown(high * part / 4, unit), 9, DIM, "end"))
    place = left
    for number, (label, one) in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        at = [
            f"{left + (t - begin) / (end - begin) * (right - left):.1f} {bottom - float(v) / high * (bottom - top):.1f}"
            for t, v in one["values"]
            if v != "NaN"
        ]
        if at:
            out.append(f'<path d="M{"L".join(at)}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if place + 7 * len(label) < right:
            out.append(f'<rect x="{place}" y="{bottom + 14}" width="10" height="3" fill="{colour}"/>')
            out.append(text(place + 14, bottom + 19, label, 10, DIM))
            place += 26 + 6.2 * len(label)
    if not points:
        out.append(text((left + right) / 2, (top + bottom) / 2, "No data", 13, DIM, "middle"))
    return out


def table(box, series):
    x, y, w, h = box
    rows = [s["metric"] for _, s in series]
    heads = sorted({label for row in rows for label in row} - HIDDEN)
    out, width = [], (w - 20) / max(len(heads), 1)
    for column, head in enumerate(heads):
        at = x + 10 + column * width
        out.append(text(at, y + 40, head, 11, COLOURS[2], weight="bold"))
        fitting = rows[: int((h - 50) // 17)]
        out += [text(at, y + 58 + 17 * n, row.get(head, ""), 11) for n, row in enumerate(fitting)]
    return out


def draw(panel, url, begin, end):
    at = panel["gridPos"]
    box = (at["x"] * COLUMN + GAP, at["y"] * ROW + GAP, at["w"] * COLUMN - GAP, at["h"] * ROW - GAP)
    unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
    series = []
    for target in panel["targets"]:
        query = target["expr"].replace("$instance", ".*").replace("$gpu", ".*").replace("[5m]", "[10s]")
        if panel["type"] == "timeseries":
            found = ask(url, "query_range", query=query, start=begin, end=end, step=1)
        else:
            found = ask(url, "query", query=query, time=end)
        series += [(name(target, one["metric"]), one) for one in found]
    x, y, w, h = box
    head = [f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="3" fill="{PANEL}"/>', text(x + 10, y + 18, panel["title"], 12)]
    if panel["type"] == "stat":
        return head + stat(box, series, unit)
    return head + (table(box, series) if panel["type"] == "table" else lines(box, series, unit, begin, end))


def main(url, seconds):
    board = json.loads(Path(__file__).with_name("migshare.json").read_text())
    end = time.time()
    panels = [p for p in board["panels"] if p.get("targets")]
    high = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels) * ROW + 2 * GAP
    size = f'width="{24 * COLUMN + GAP}" height="{high}"'
    print(f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="Inter, Helvetica, Arial, sans-serif">')
    print(f'<rect {size} fill="{BACK}"/>')
    for panel in panels:
        print("\n".join(draw(panel, url, end - float(seconds), end)))
    print("</svg>")


main(*sys.argv[1:])
