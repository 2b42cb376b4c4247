// Draws the charts of the report with uPlot from the model in the page. Everything that can be said in
// words or tables is in the page already.
(() => {
  "use strict";

  const root = document.documentElement;
  const model = JSON.parse(document.getElementById("model").textContent);
  const FONT = `12px ${getComputedStyle(document.body).fontFamily}`;
  const hidden = new Set();
  let plots = [];
  // The chart under the mouse or the focus: the others show only the line of its moment.
  let active = null;

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const groupColour = (group) => colour(`--run-${model.groups[group].colour}`);

  // Numbers with three significant digits, as in the tables.
  const plain = (n) => {
    const a = Math.abs(n);
    // A logarithmic axis goes down to ten-thousandths.
    if (a > 0 && a < 0.1) return n.toLocaleString("en", { maximumSignificantDigits: 3 });
    return n.toLocaleString("en", { maximumFractionDigits: a >= 99.95 ? 0 : a >= 9.995 ? 1 : a >= 0.995 ? 2 : 3 });
  };
  const STEPS = {
    ms: [[1e-3, "µs"], [1, "ms"], [1e3, "s"]],
    B: [[1, "B"], [1e3, "kB"], [1e6, "MB"], [1e9, "GB"]],
    "/s": [[1, "/s"], [1e3, "k/s"], [1e6, "M/s"]],
  };
  // The unit in which `value` is best read.
  const step = (unit, value) => {
    const steps = STEPS[unit] || [[1, unit]];
    const fit = steps.filter(([from]) => value >= from).pop() || steps[0];
    return { name: fit[1], factor: fit[0] };
  };
  const withUnit = (unit, value) => {
    const { name, factor } = step(unit, Math.abs(value));
    return name === "%" || name === "/s" ? plain(value / factor) + name : `${plain(value / factor)} ${name}`;
  };

  // One table of all series for uPlot, which wants a common x.
  const joined = (chart) => uPlot.join(chart.lines.map((line) => [line.x, line.y]));

  const extent = (chart, of) => {
    let [min, max] = [Infinity, -Infinity];
    for (const line of chart.lines) for (const v of line[of]) { min = Math.min(min, v); max = Math.max(max, v); }
    return [min, max];
  };

  // One stretch of time for all charts of a section, so that they can be read below one another.
  const times = (section) => {
    const charts = model.charts.filter((chart) => chart.section === section && chart.x.unit === "s");
    const timed = charts.map((chart) => extent(chart, "x"));
    return [Math.min(0, ...timed.map(([min]) => min)), Math.max(1, ...timed.map(([, max]) => max))];
  };

  const range = (chart, of) => {
    const [min, max] = extent(chart, of);
    const axis = chart[of];
    if (axis.unit === "%") return [0, 100];
    if (axis.log) return [min / 1.25, max * 1.25];
    if (of === "x" && axis.unit === "s") return times(chart.section);
    return [0, max > 0 ? max * 1.08 : 1];
  };

  // 1, 2 and 5 of every power of ten, or fewer where there are many powers.
  const decades = (min, max, factor) => {
    const powers = Math.log10(max / min);
    const digits = powers > 3 ? [1] : powers > 1.8 ? [1, 3] : [1, 2, 5];
    const ticks = [];
    for (let p = Math.floor(Math.log10(min / factor)); p <= Math.log10(max / factor); p += 1) {
      for (const digit of digits) {
        const tick = digit * 10 ** p * factor;
        if (tick >= min && tick <= max) ticks.push(tick);
      }
    }
    return ticks;
  };

  const axis = (chart, of) => {
    const { unit, name, log } = chart[of];
    // Of times an axis shows the short ones too.
    const { name: shown, factor } = step(unit, extent(chart, of)[1] / (unit === "ms" ? 10 : 1));
    return {
      label: `${name}, ${shown}${log ? ", logarithmic" : ""}`,
      labelSize: 18,
      labelGap: 2,
      labelFont: FONT,
      font: FONT,
      size: of === "x" ? 22 : 50,
      gap: 4,
      stroke: () => colour("--muted"),
      grid: { stroke: () => colour("--grid"), width: 1 },
      ticks: { show: false },
      space: of === "x" ? 56 : 34,
      ...(log && { splits: (u, _, min, max) => decades(min, max, factor), filter: (_, splits) => splits }),
      values: (_, splits) => splits.map((v) => (v === null ? "" : plain(v / factor))),
    };
  };

  // Compactions are tracks above a chart, one per run; all else lies behind its series.
  const tracksOf = (section) => {
    const marks = model.marks.filter((mark) => mark.section === section && mark.kind === "compaction");
    return [...new Set(marks.map((mark) => mark.group))];
  };
  const LANE = 6;
  const shade = (u, section) => {
    const tracks = tracksOf(section);
    const { ctx, bbox } = u;
    const dot = devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, 0, bbox.width, bbox.top + bbox.height);
    ctx.clip();
    for (const mark of model.marks) {
      if (mark.section !== section || hidden.has(mark.group)) continue;
      const from = u.valToPos(mark.from, "x", true);
      const width = Math.max(u.valToPos(mark.to, "x", true) - from, dot);
      ctx.fillStyle = mark.kind === "outage" || mark.kind === "failure" ? colour("--bad") : groupColour(mark.group);
      if (mark.kind === "compaction") {
        ctx.globalAlpha = 0.8;
        ctx.fillRect(from, (4 + LANE * tracks.indexOf(mark.group)) * dot, width, (LANE - 2) * dot);
      } else if (mark.kind === "failure") {
        ctx.globalAlpha = 1;
        ctx.font = `bold ${14 * dot}px sans-serif`;
        ctx.textAlign = "center";
        ctx.fillText("×", from, bbox.top + 13 * dot);
      } else {
        ctx.globalAlpha = mark.kind === "outage" ? 0.1 : 0.14;
        ctx.fillRect(from, bbox.top, width, bbox.height);
      }
    }
    ctx.restore();
  };

  // Values of all series at the cursor, in a box beside it and, for screen readers, in words.
  const readout = (u, chart, box) => {
    const { left, top, idxs } = u.cursor;
    if (active !== u || left == null || left < 0) { box.hidden = true; return; }
    const rows = [];
    let x = null;
    chart.lines.forEach((line, i) => {
      const at = idxs[i + 1];
      if (hidden.has(line.group) || at == null || u.data[i + 1][at] == null) return;
      x = x ?? u.data[0][at];
      rows.push([line.group, withUnit(chart.y.unit, u.data[i + 1][at])]);
    });
    if (rows.length === 0) { box.hidden = true; return; }
    rows.sort(([a], [b]) => a - b);
    box.replaceChildren();
    const heading = box.appendChild(document.createElement("div"));
    heading.textContent = chart.x.unit === "s" ? `at ${plain(x)} s` : `within ${withUnit(chart.x.unit, x)}`;
    for (const [group, value] of rows) {
      const row = box.appendChild(document.createElement("div"));
      row.className = `row run-${model.groups[group].colour}`;
      row.appendChild(document.createElement("span")).textContent = model.groups[group].name;
      row.appendChild(document.createElement("b")).textContent = value;
    }
    box.hidden = false;
    const right = left + box.offsetWidth + 16 > u.over.clientWidth;
    box.style.left = `${Math.max(0, right ? left - box.offsetWidth - 12 : left + 12)}px`;
    box.style.top = `${Math.max(0, Math.min(top, u.over.clientHeight - box.offsetHeight))}px`;
  };

  // The nearest point that each series has: series of different runs have none in common.
  const nearest = (u, series, at, x) => {
    const [xs, ys] = [u.data[0], u.data[series]];
    if (ys[at] != null) return at;
    let [low, high] = [at, at];
    while (low >= 0 && ys[low] == null) low -= 1;
    while (high < ys.length && ys[high] == null) high += 1;
    if (low < 0) return high < ys.length ? high : null;
    if (high >= ys.length) return low;
    return x - xs[low] <= xs[high] - x ? low : high;
  };

  const steps = (u, key) => {
    const { left } = u.cursor;
    const width = u.over.clientWidth;
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[key];
    if (key === "Home") return 0;
    if (key === "End") return width;
    return by && Math.max(0, Math.min(width, (left == null || left < 0 ? width / 2 : left) + (by * width) / 100));
  };

  const draw = (chart) => {
    const place = document.getElementById(chart.id);
    place.replaceChildren();
    const one = chart.lines.length === 1 || chart.lines.every((line) => line.x.length < 30);
    const series = chart.lines.map((line) => ({
      label: model.groups[line.group].name,
      show: !hidden.has(line.group),
      stroke: groupColour(line.group) + (chart.draw === "points" ? "55" : ""),
      width: chart.draw === "points" ? 1 : 1.8,
      spanGaps: true,
      paths: chart.draw === "step" ? uPlot.paths.stepped({ align: 1 }) : uPlot.paths.linear(),
      points: { show: chart.draw === "points" || one, size: 4.5, width: 0, fill: groupColour(line.group) },
    }));
    const size = () => ({ width: place.clientWidth, height: matchMedia("(max-width: 700px)").matches ? 220 : 260 });
    const scale = (of) => ({ time: false, distr: chart[of].log ? 3 : 1, range: range(chart, of) });
    const box = document.createElement("div");
    const plot = new uPlot({
      ...size(),
      padding: [chart.shaded ? 10 + LANE * tracksOf(chart.section).length : 10, 16, 0, 0],
      legend: { show: false },
      cursor: {
        dataIdx: nearest,
        y: false,
        points: { size: 7, width: 1 },
        focus: { prox: -1 },
        drag: { x: true, y: false },
        sync: chart.x.unit === "s" ? { key: `time${chart.section}`, scales: ["x", null] } : undefined,
      },
      scales: {
        x: { ...scale("x"), range: (u, min, max) => (min == null ? range(chart, "x") : u.zoomed ? [min, max] : range(chart, "x")) },
        y: scale("y"),
      },
      axes: [axis(chart, "x"), axis(chart, "y")],
      series: [{}, ...series],
      hooks: {
        drawClear: chart.shaded ? [(u) => shade(u, chart.section)] : [],
        setCursor: [(u) => readout(u, chart, box)],
        setSelect: [(u) => { u.zoomed = u.select.width > 0; }],
      },
    }, joined(chart), place);
    box.className = "readout";
    box.hidden = true;
    plot.over.appendChild(box);
    place.onkeydown = (event) => {
      const left = steps(plot, event.key);
      if (event.key === "Escape") away();
      else if (left === undefined) return;
      else plot.setCursor({ left, top: 12 }, true, true);
      event.preventDefault();
      const said = place.parentElement.querySelector(".said");
      said.textContent = box.hidden ? "" : [...box.children].map((row) => [...row.childNodes].map((n) => n.textContent).join(" ")).join(", ");
    };
    const away = () => plot.setCursor({ left: -10, top: -10 }, true, true);
    place.onblur = away;
    place.onfocus = place.onmouseenter = () => { active = plot; };
    // Before uPlot's own listener, which scales anew.
    plot.root.addEventListener("dblclick", () => { for (const entry of plots) entry.plot.zoomed = false; }, true);
    plots.push({ chart, plot, size, width: place.clientWidth });
  };

  const drawAll = () => {
    for (const { plot } of plots) plot.destroy();
    plots = [];
    model.charts.forEach(draw);
    root.dataset.charts = String(plots.length);
  };

  const toggles = document.querySelectorAll("button[data-group]");
  for (const button of toggles) {
    button.onclick = () => {
      const group = Number(button.dataset.group);
      if (!hidden.delete(group)) hidden.add(group);
      button.setAttribute("aria-pressed", String(!hidden.has(group)));
      for (const { chart, plot } of plots) {
        chart.lines.forEach((line, i) => { if (line.group === group) plot.setSeries(i + 1, { show: !hidden.has(group) }); });
        plot.redraw();
      }
    };
  }

  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("resize", () => {
    for (const entry of plots) {
      const size = entry.size();
      if (size.width !== entry.width) { entry.width = size.width; entry.plot.setSize(size); }
    }
  });

  // Told to tests, and to whoever wonders.
  root.dataset.rendered = root.dataset.errors ? "failed" : "ok";
})();
