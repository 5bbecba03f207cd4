// Draws the charts of a run with Bokeh, in the colours of the page, and switches what its legend says.
(() => {
  "use strict";

  const DASHES = { training: [], validation: [2, 3], "saved run": [8, 5], twin: [5, 3] };
  const TALL = 380, LOW = 240, MOST_DOTS = 60;
  // What this script says, in the language of the page.
  const words = JSON.parse(document.getElementById("words")?.textContent ?? "{}");
  const say = (text) => words[text] ?? text;

  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  // Bokeh takes $$...$$ and \(...\) for formulas, and would load what draws them from the internet.
  const inert = (text) => text.replaceAll("$", "$\u200b").replaceAll("\\", "\\\u200b");
  const cssValue = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const numbers = (values) => Float64Array.from(values, (value) => (value === null ? NaN : value));
  const column = (field) => ({ field });

  function allValues(chart) {
    const values = chart.lines.flatMap((line) => line.values).filter((value) => value !== null);
    return values.concat(chart.bounds.map((bound) => bound.value));
  }

  // How values become heights: a logarithmic axis, or where a value is not positive one that is linear about zero.
  function scaling(chart, scale) {
    const values = allValues(chart);
    if (scale === "linear" || values.length === 0) {
      const span = 2 * Math.max(0, ...values) || 2;
      return { axis: "linear", height: (value) => value, range: Math.min(0, ...values) < 0 ? {} : { start: 0, default_span: span } };
    }
    if (values.every((value) => value > 0)) return { axis: "log", height: (value) => value };
    const largest = Math.max(...values.map(Math.abs)) || 1;
    const limits = chart.bounds.map((bound) => Math.abs(bound.value)).filter((value) => value > 0);
    const power = Math.max(Math.floor(Math.log10(Math.min(largest / 1000, ...limits))), Math.floor(Math.log10(largest)) - 8);
    const threshold = 10 ** power;
    const height = (value) => Math.sign(value) * Math.log10(1 + Math.abs(value) / threshold);
    const labels = new Map([[0, "0"]]);
    for (let p = power + 1; p <= Math.ceil(Math.log10(largest)); p += 1) {
      const label = p > 3 || p < -3 ? `1e${p}` : String(Number((10 ** p).toPrecision(1)));
      labels.set(height(10 ** p), label);
      labels.set(height(-(10 ** p)), `−${label}`);
    }
    return { axis: "linear", height, labels };
  }

  // Where the lines that a limit is on end, for their names.
  function endsOf(chart) {
    return chart.lines.filter((line) => line.kind === "training" && line.strong && !line.steps).flatMap((line) => {
      const row = line.values.findLastIndex((value) => value !== null);
      return row < 0 ? [] : [{ line, step: chart.steps[row], value: line.values[row] }];
    });
  }

  function frame(chart, y) {
    const ink = cssValue("--ink-2"), faint = cssValue("--line");
    const plot = Bokeh.Plotting.figure({
      height: chart.id === "losses" ? TALL : LOW,
      sizing_mode: "stretch_width",
      y_axis_type: y.axis,
      y_range: new Bokeh.DataRange1d({ only_visible: true, ...y.range }),
      tools: "pan,box_zoom,wheel_zoom,reset,save",
      toolbar_location: "above",
      toolbar_inner: true,
      background_fill_color: null,
      border_fill_color: null,
      outline_line_color: null,
      min_border_left: 56,
      x_axis_label: say("step"),
      y_axis_label: inert(chart.axis),
    });
    plot.toolbar.logo = null;
    plot.toolbar.autohide = true;
    plot.toolbar.stylesheets = [":host(.bk-inner) { background: none; opacity: 1; }"];
    const named = document.documentElement.clientWidth > 600 && endsOf(chart).length > 1;
    const last = Math.max(2, ...chart.lines.map((line) => (line.steps ?? chart.steps).at(-1) ?? 1));
    plot.x_range.range_padding = 0.02;
    const wide = document.documentElement.clientWidth - 220, longest = Math.max(...endsOf(chart).map((end) => told(end.line).length));
    if (named) plot.x_range = new Bokeh.Range1d({ start: 1 - 0.02 * last, end: (1 + Math.max(0.14, (8 * longest) / wide)) * last });
    const finger = window.matchMedia("(pointer: coarse)").matches;  // which scrolls the page
    plot.toolbar.active_drag = finger ? null : plot.toolbar.tools.find((tool) => tool.type === "BoxZoomTool");
    for (const axis of [...plot.xaxes, ...plot.yaxes]) {
      axis.setv({
        axis_label_text_color: ink, major_label_text_color: ink, axis_line_color: faint, major_tick_line_color: faint,
        minor_tick_line_color: null, major_tick_in: 0, axis_label_text_font_style: "normal",
        axis_label_text_font: "system-ui, sans-serif", major_label_text_font: "system-ui, sans-serif",
        axis_label_text_font_size: "12px", major_label_text_font_size: "12px",
      });
    }
    for (const grid of [...plot.xgrids, ...plot.ygrids]) grid.grid_line_color = faint;
    for (const grid of plot.xgrids) grid.grid_line_color = null;
    if (y.range?.start === 0) plot.yaxes[0].formatter = new Bokeh.PrintfTickFormatter({ format: "%.4g" });
    if (y.labels) {
      plot.yaxes[0].ticker = new Bokeh.FixedTicker({ ticks: [...y.labels.keys()] });
      plot.yaxes[0].major_label_overrides = y.labels;
    }
    return plot;
  }

  function hover(plot, renderer, tooltips, formatters, more = {}) {
    plot.add_tools(new Bokeh.HoverTool({ renderers: [renderer], tooltips, formatters, visible: false, ...more }));
  }

  // Tooltips of Bokeh are white whatever the page is; where they cannot be reached they stay so.
  function tintTooltips(view) {
    const look = `:host { background: ${cssValue("--surface")}; color: ${cssValue("--ink")}; border-radius: 6px;
      border-color: ${cssValue("--line")}; padding: 8px 10px; font: 12px/1.5 system-ui, sans-serif; opacity: 0.97;
      font-variant-numeric: tabular-nums; }
      .bk-tooltip-row-label { color: ${cssValue("--ink-2")}; text-align: left; padding-right: 10px; }
      .bk-tooltip-row-value { text-align: right; }
      .bk-arrow, .bk-arrow-inner { display: none; }`;
    for (const tool of view.tool_views?.values() ?? []) {
      for (const tooltip of tool.ttmodels?.values() ?? []) tooltip.stylesheets = [look];
    }
  }

  const told = (line) => inert(line.seed === null ? line.name : `${line.name}, ${say("seed")} ${line.seed}`);

  function style(line) {
    return {
      line_color: line.color, line_width: line.strong ? 2.2 : 1.2, line_alpha: line.strong ? 0.95 : 0.6,
      line_dash: DASHES[line.kind],
    };
  }

  // Lines that share their steps, and one invisible line over them whose hover shows the values of all.
  function drawShared(plot, chart, y) {
    const lines = chart.lines.filter((line) => !line.steps);
    if (lines.length === 0) return [];
    const data = { step: chart.steps };
    const tops = chart.steps.map(() => NaN);
    lines.forEach((line, index) => {
      const heights = line.values.map((value) => (value === null ? null : y.height(value)));
      data[`value${index}`] = numbers(line.values);
      data[`height${index}`] = numbers(heights);
      heights.forEach((height, row) => {
        if (height !== null && !(tops[row] >= height)) tops[row] = height;
      });
    });
    const source = new Bokeh.ColumnDataSource({ data: { ...data, top: numbers(tops) } });
    const drawn = lines.map((line, index) => {
      const glyph = plot.line(column("step"), column(`height${index}`), { source, name: line.name, ...style(line) });
      return { ...line, glyph };
    });
    const top = plot.line(column("step"), column("top"), { source, line_alpha: 0, name: "hover" });
    const rows = lines.map((line, index) => [told(line), `@value${index}{%.4g}`]);
    const formatters = Object.fromEntries(lines.map((_, index) => [`@value${index}`, "printf"]));
    hover(plot, top, [[say("step"), "@step{0,0}"], ...rows], formatters, { mode: "vline", line_policy: "nearest" });
    return drawn;
  }

  // A line with steps of its own: of a saved run, or of validation, of which few points are dots alone, as is a single one.
  function drawOwn(plot, line, y) {
    const heights = line.values.map((value) => (value === null ? null : y.height(value)));
    const source = new Bokeh.ColumnDataSource({
      data: { step: line.steps, value: numbers(line.values), height: numbers(heights) },
    });
    const name = `${line.kind} ${line.name}`;
    const drawn = [];
    if (line.kind !== "validation" || line.steps.length > MOST_DOTS) {
      drawn.push(plot.line(column("step"), column("height"), { source, name, ...style(line) }));
    }
    if (line.kind === "validation" || line.steps.length === 1) {
      const size = line.steps.length > MOST_DOTS ? 3 : line.strong ? 7 : 5;
      drawn.push(plot.scatter(column("step"), column("height"), { source, name, size, color: line.color }));
    }
    hover(plot, drawn.at(-1), [[`${told(line)}, ${say(line.kind)}`, "@value{%.4g}"], [say("step"), "@step{0,0}"]], {
      "@value": "printf",
    });
    return drawn.map((glyph) => ({ ...line, glyph }));
  }

  // Limits at one height share their text.
  function drawBounds(plot, chart, y) {
    const ends = chart.lines.map((line) => (line.steps ?? chart.steps).at(-1) ?? 1);
    const byValue = new Map();
    for (const bound of chart.bounds) byValue.set(bound.value, [...(byValue.get(bound.value) ?? []), bound]);
    return [...byValue].flatMap(([value, bounds]) => {
      const names = bounds.map((bound, index) => (index + 1 === bounds.length ? bound.text : bound.name));
      const label = new Bokeh.Label({
        x: Math.max(2, ...ends), y: y.height(value), text_align: "right", text: inert(names.join(", ")), text_color: cssValue("--ink-2"),
        text_font: "system-ui, sans-serif", text_font_size: "11px", text_baseline: "bottom", y_offset: 3,
        background_fill_color: cssValue("--surface"), background_fill_alpha: 0.7,
      });
      plot.add_layout(label);
      const lines = bounds.map((bound) => ({
        name: bound.name, kind: "limit", seed: null,
        glyph: plot.line([1, Math.max(2, ...ends)], [y.height(value), y.height(value)], {
          name: `limit ${bound.name}`, line_color: bound.color, line_dash: [5, 4], line_width: 1.4,
        }),
      }));
      return [...lines, { name: null, kind: "limit", seed: null, glyph: label }];
    });
  }

  function drawMarks(plot, chart, y) {
    return chart.marks.filter((mark) => mark.value !== null).map((mark) => {
      const data = { step: [mark.step], height: [y.height(mark.value)], value: [mark.value], text: [mark.text] };
      const glyph = plot.scatter(column("step"), column("height"), {
        source: new Bokeh.ColumnDataSource({ data }), name: `mark ${mark.name}`, size: 10,
        line_color: mark.color, line_width: 2.2, fill_color: cssValue("--surface"),
      });
      hover(plot, glyph, [[say("limit met"), "@text"], [say("value"), "@value{%.4g}"]], { "@value": "printf" });
      return { name: mark.name, kind: "training", seed: mark.seed, glyph };
    });
  }

  // The name of a line at its end, where it is read without a legend; names that would meet move apart.
  function drawEnds(plot, chart, y) {
    const ends = endsOf(chart).map((end) => ({ ...end, height: y.height(end.value) }));
    if (ends.length < 2) return [];
    const up = (end) => (y.axis === "log" ? Math.log10(end.height) : end.height);
    ends.sort((a, b) => up(a) - up(b));
    const heights = chart.lines.filter((line) => line.strong).flatMap((line) => line.values).filter((value) => value !== null)
      .map((value) => up({ height: y.height(value) }));
    const room = (plot.height - 70) / ((Math.max(...heights) - Math.min(...heights)) || 1);
    let last = -Infinity;
    return ends.map((end) => {
      const at = up(end) * room, shifted = Math.max(at, last + 13);
      last = shifted;
      const label = new Bokeh.Label({
        x: end.step, y: end.height, x_offset: 6, y_offset: shifted - at, text: told(end.line), text_color: end.line.color,
        text_font: "system-ui, sans-serif", text_font_size: "11px", text_baseline: "middle",
      });
      plot.add_layout(label);
      return { name: end.line.name, kind: "training", seed: end.line.seed, glyph: label };
    });
  }

  class ChartBox {
    constructor(box, chart) {
      this.box = box;
      this.chart = chart;
      this.target = box.querySelector("[data-plot]");
      this.off = new Set();
      this.scale = chart.scale;
      this.drawn = [];
      for (const button of box.querySelectorAll("[data-field]")) {
        if (button.getAttribute("aria-pressed") !== "true") this.off.add(`${button.dataset.field} ${button.dataset.value}`);
        button.addEventListener("click", () => this.flip(button));
      }
      for (const input of box.querySelectorAll("input[data-scale]")) {
        input.addEventListener("change", () => {
          this.scale = input.dataset.scale;
          this.draw();
        });
      }
    }

    async draw() {
      const { chart } = this;
      const y = scaling(chart, this.scale);
      const plot = frame(chart, y);
      this.drawn = [
        ...drawBounds(plot, chart, y),
        ...drawShared(plot, chart, y),
        ...chart.lines.filter((line) => line.steps).flatMap((line) => drawOwn(plot, line, y)),
        ...drawMarks(plot, chart, y),
        ...(document.documentElement.clientWidth > 600 ? drawEnds(plot, chart, y) : []),
      ];
      this.plot = plot;
      this.show();
      this.view?.remove();
      this.target.replaceChildren();
      this.view = await Bokeh.Plotting.show(plot, this.target);
      tintTooltips(this.view);
      this.box.dataset.state = "drawn";
    }

    flip(button) {
      const key = `${button.dataset.field} ${button.dataset.value}`;
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      if (on) this.off.delete(key);
      else this.off.add(key);
      this.show();
    }

    show() {
      for (const item of this.drawn) {
        const keys = [`name ${item.name}`, `kind ${item.kind}`, `seed ${item.seed}`];
        item.glyph.visible = !keys.some((key) => this.off.has(key));
      }
    }
  }

  async function start() {
    const given = document.getElementById("chart-data");
    if (!given) return;
    const charts = JSON.parse(given.textContent);
    if (!window.Bokeh?.Plotting) {
      for (const box of document.querySelectorAll("[data-chart]")) box.dataset.state = "failed";
      return;
    }
    const boxes = charts.map((chart) => new ChartBox(document.querySelector(`[data-chart="${chart.id}"]`), chart));
    window.overfitCharts = boxes;
    for (const box of boxes) await box.draw();
    dark.addEventListener("change", () => boxes.forEach((box) => box.draw()));
  }

  start();
})();
