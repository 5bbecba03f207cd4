// Draws the charts of a run with Bokeh, in the colours of the page, and switches what its legend says.
(() => {
  "use strict";

  const DASHES = { training: [], validation: [2, 3], "saved run": [8, 5], twin: [5, 3] };
  const CONTRAST = 4.5;  // of a text, which the name of a line is
  const TALL = 380, LOW = 240, MOST_DOTS = 60;
  const FONT = "system-ui, sans-serif";
  // What this script says, in the language of the page.
  const words = JSON.parse(document.getElementById("words")?.textContent ?? "{}");
  const say = (text) => words[text] ?? text;

  const dark = window.matchMedia("(prefers-color-scheme: dark)"), print = window.matchMedia("print");

  // Bokeh takes $$...$$ and \(...\) for formulas, and would load what draws them from the internet.
  const inert = (text) => text.replaceAll("$", "$\u200b").replaceAll("\\", "\\\u200b");
  const cssValue = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const whole = (color) => (color.length > 4 ? color : color.replace(/[0-9a-f]/gi, "$&$&"));  // #fff as #ffffff
  const parts = (color) => [1, 3, 5].map((at) => parseInt(whole(color).slice(at, at + 2), 16));
  const linear = (part) => (part > 10 ? ((part / 255 + 0.055) / 1.055) ** 2.4 : part / 3294.6);
  const luminance = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, at) => sum + weight * linear(rgb[at]), 0.05);

  // A colour moved towards the ink of the page until it is read on its ground, as a text is.
  function readable(color) {
    const [ink, ground, from] = [cssValue("--ink"), cssValue("--surface"), color].map(parts);
    for (let share = 0; share < 1; share += 0.05) {
      const mixed = from.map((part, at) => Math.round(part + share * (ink[at] - part)));
      const [less, more] = [luminance(mixed), luminance(ground)].sort((a, b) => a - b);
      if (more / less >= CONTRAST) return `rgb(${mixed.join(", ")})`;
    }
    return cssValue("--ink");
  }

  // A chart in colours that are read, whether the page is light or dark.
  function tinted(chart) {
    const all = (list) => list.map((each) => ({ ...each, color: readable(each.color) }));
    return { ...chart, lines: all(chart.lines), bounds: all(chart.bounds), marks: all(chart.marks) };
  }

  const numbers = (values) => Float64Array.from(values, (value) => (value === null ? NaN : value));
  const column = (field) => ({ field });

  // How values become heights: a logarithmic axis, or where one that is seen is not positive one that is linear about zero.
  // `start` and `end` are the heights at the edges, `scaled` what the axis is linear in.
  function scaling(chart, scale, seen) {
    const values = [...chart.lines, ...chart.bounds].filter(seen).flatMap((each) => each.values ?? each.value)
      .filter((value) => value !== null);
    const plain = (value) => value;
    if (scale === "linear" || values.length === 0) {
      const [least, most] = [Math.min(0, ...values), Math.max(0, ...values)];
      const room = 0.05 * (most - least) || 1;
      return { axis: "linear", height: plain, scaled: plain, start: least < 0 ? least - room : 0, end: most + room };
    }
    if (values.every((value) => value > 0)) {
      const [least, most] = [Math.log10(Math.min(...values)), Math.log10(Math.max(...values))];
      const room = 0.05 * (most - least) || 0.5;
      const height = (value) => (value > 0 ? value : null);
      return { axis: "log", height, scaled: Math.log10, start: 10 ** (least - room), end: 10 ** (most + room) };
    }
    const largest = Math.max(...values.map(Math.abs)) || 1;
    const limits = chart.bounds.filter(seen).map((bound) => Math.abs(bound.value)).filter((value) => value > 0);
    const power = Math.max(Math.floor(Math.log10(Math.min(largest / 1000, ...limits))), Math.floor(Math.log10(largest)) - 8);
    const threshold = 10 ** power;
    const height = (value) => Math.sign(value) * Math.log10(1 + Math.abs(value) / threshold);
    const labels = new Map([[0, "0"]]);
    for (let p = power + 1; p <= Math.ceil(Math.log10(largest)); p += 1) {
      const label = p > 3 || p < -3 ? `1e${p}` : String(Number((10 ** p).toPrecision(1)));
      labels.set(height(10 ** p), label);
      labels.set(height(-(10 ** p)), `−${label}`);
    }
    const heights = values.map(height), [least, most] = [Math.min(...heights), Math.max(...heights)];
    const room = 0.05 * (most - least) || 1;
    return { axis: "linear", height, scaled: plain, labels, start: least - room, end: most + room };
  }

  // Where the lines that a limit is on end, for their names.
  function endsOf(chart) {
    return chart.lines.filter((line) => line.kind === "training" && line.strong && !line.steps).flatMap((line) => {
      const row = line.values.findLastIndex((value) => value !== null);
      return row < 0 ? [] : [{ line, step: chart.steps[row], value: line.values[row] }];
    });
  }

  const tallOf = (chart) => (chart.id === "losses" ? TALL : LOW);

  // The names that stand at ends of lines, where there is room beside them and more than one.
  function namedEnds(chart, seen) {
    const ends = document.documentElement.clientWidth > 600 ? endsOf(chart).filter((end) => seen(end.line)) : [];
    return ends.length > 1 ? ends : [];
  }

  function frame(chart, y, sheet) {
    const ink = cssValue("--ink-2"), faint = cssValue("--line");
    const plot = Bokeh.Plotting.figure({
      height: tallOf(chart),
      sizing_mode: "stretch_width",
      y_axis_type: y.axis,
      x_range: new Bokeh.Range1d(sheet.x),
      y_range: new Bokeh.Range1d({ start: y.start, end: y.end }),
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
    const finger = window.matchMedia("(pointer: coarse)").matches;  // which scrolls the page
    plot.toolbar.active_drag = finger ? null : plot.toolbar.tools.find((tool) => tool.type === "BoxZoomTool");
    for (const axis of [...plot.xaxes, ...plot.yaxes]) {
      axis.setv({
        axis_label_text_color: ink, major_label_text_color: ink, axis_line_color: faint, major_tick_line_color: faint,
        minor_tick_line_color: null, major_tick_in: 0, axis_label_text_font_style: "normal",
        axis_label_text_font: FONT, major_label_text_font: FONT,
        axis_label_text_font_size: "12px", major_label_text_font_size: "12px",
      });
    }
    for (const grid of [...plot.xgrids, ...plot.ygrids]) grid.grid_line_color = faint;
    for (const grid of plot.xgrids) grid.grid_line_color = null;
    const [axis, grid] = [plot.yaxes[0], plot.ygrids[0]];
    if (y.axis === "log") axis.ticker.get_ticks_no_defaults = OverfitLabels.logTicks;
    if (!y.labels) axis.formatter = new Bokeh.PrintfTickFormatter({ format: "%.4g" });
    if (y.labels) {
      axis.ticker = new Bokeh.FixedTicker({ ticks: [...y.labels.keys()] });
      axis.major_label_overrides = y.labels;
    }
    grid.ticker = axis.ticker;
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
      line_color: line.color, line_width: line.strong ? 2.2 : 1.2, line_alpha: line.strong ? 1 : 0.8,
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
      const at = [column("step"), column(`height${index}`)];
      const alone = line.values.filter((value) => value !== null).length === 1;
      const glyph = alone
        ? plot.scatter(...at, { source, name: line.name, size: 7, color: line.color })
        : plot.line(...at, { source, name: line.name, ...style(line) });
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

  // Limits at one height share their text, which stands where nothing that is seen runs through it.
  function drawBounds(plot, chart, y, sheet, seen) {
    const byValue = new Map();
    for (const bound of chart.bounds.filter((bound) => y.height(bound.value) !== null)) {
      byValue.set(bound.value, [...(byValue.get(bound.value) ?? []), bound]);
    }
    return [...byValue].flatMap(([value, bounds]) => {
      const height = y.height(value), told = bounds.filter(seen);
      const lines = bounds.map((bound) => ({
        name: bound.name, kind: "limit", seed: null,
        glyph: plot.line([1, sheet.last], [height, height], {
          name: `limit ${bound.name}`, line_color: bound.color, line_dash: [5, 4], line_width: 1.4,
        }),
      }));
      if (told.length === 0) return lines;
      const text = sheet.fitted(told.map((bound, index) => (index + 1 === told.length ? bound.text : bound.name)).join(", "));
      const place = sheet.freeOf(text, height);
      const label = new Bokeh.Label({
        x: place.step, y: height, text_align: place.align, text: inert(text), text_color: cssValue("--ink-2"),
        text_font: FONT, text_font_size: "11px", text_baseline: place.above ? "bottom" : "top", y_offset: place.above ? 3 : -3,
      });
      plot.add_layout(label);
      return [...lines, { name: null, kind: "limit", seed: null, glyph: label }];
    });
  }

  function drawMarks(plot, chart, y) {
    return chart.marks.filter((mark) => mark.value !== null).map((mark) => {
      const data = { step: [mark.step], height: [y.height(mark.value) ?? NaN], value: [mark.value], text: [mark.text] };
      const glyph = plot.scatter(column("step"), column("height"), {
        source: new Bokeh.ColumnDataSource({ data }), name: `mark ${mark.name}`, size: 10,
        line_color: mark.color, line_width: 2.2, fill_color: cssValue("--surface"),
      });
      hover(plot, glyph, [[say("limit met"), "@text"], [say("value"), "@value{%.4g}"]], { "@value": "printf" });
      return { name: mark.name, kind: "training", seed: mark.seed, glyph };
    });
  }

  // The name of a line at its end, where it is read without a legend; names that would meet move apart.
  function drawEnds(plot, ends, y, sheet) {
    const wanted = ends.map((end) => sheet.up(y.height(end.value)));
    return OverfitLabels.apart(wanted, 13, sheet.tall - 6, 6).map((at, index) => {
      const { line, step, value } = ends[index];
      const label = new Bokeh.Label({
        x: step, y: y.height(value), x_offset: 9, y_offset: at - wanted[index], text: told(line), text_color: line.color,
        text_font: FONT, text_font_size: "11px", text_baseline: "middle",
      });
      plot.add_layout(label);
      return { name: line.name, kind: "training", seed: line.seed, glyph: label };
    });
  }

  class ChartBox {
    constructor(box, chart) {
      this.box = box;
      this.chart = chart;
      this.target = box.querySelector("[data-plot]");
      this.off = new Set();
      this.swatches = [...box.querySelectorAll("[style*='--swatch']")]
        .map((button) => [button, button.style.getPropertyValue("--swatch").trim()]);
      this.scale = chart.scale;
      this.drawn = [];
      this.painted = Promise.resolve();
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

    // Whether what has this name, kind and seed is switched on.
    seen(item) {
      const keys = [`name ${item.name}`, `kind ${item.kind ?? "limit"}`, `seed ${item.seed ?? null}`];
      return !keys.some((key) => this.off.has(key));
    }

    draw() {
      const chart = tinted(this.chart);
      for (const [button, color] of this.swatches) button.style.setProperty("--swatch", readable(color));
      const seen = (item) => this.seen(item);
      const y = scaling(chart, this.scale, seen), ends = namedEnds(chart, seen);
      const letters = Math.max(0, ...ends.map((end) => told(end.line).length));
      const sheet = new OverfitLabels.Sheet(chart, y, seen, this.target.clientWidth, tallOf(chart), letters);
      const plot = frame(chart, y, sheet);
      this.drawn = [
        ...drawShared(plot, chart, y),
        ...chart.lines.filter((line) => line.steps).flatMap((line) => drawOwn(plot, line, y)),
        ...drawBounds(plot, chart, y, sheet, seen),
        ...drawMarks(plot, chart, y),
        ...drawEnds(plot, ends, y, sheet),
      ];
      for (const item of this.drawn) item.glyph.visible = seen(item);
      this.plot = plot;
      this.painted = this.painted.then(() => this.paint(plot));
      return this.painted;
    }

    // One after the other; a plot that another one was asked for meanwhile is never shown.
    async paint(plot) {
      if (this.plot !== plot) return;
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
      this.draw();  // anew: heights and places of labels follow from what is seen
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
    for (const media of [dark, print]) media.addEventListener("change", () => boxes.forEach((box) => box.draw()));
  }

  start();
})();
