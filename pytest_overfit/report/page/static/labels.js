// Where the labels of a chart stand: beside no curve that runs through them, and not over each other.
const OverfitLabels = (() => {
  "use strict";

  const LETTER = 6.3, LINE = 14;  // pixels of a text of 11 pixels
  const AXES = { left: 62, right: 12, above: 8, below: 52 };  // pixels around the inner part of a plot
  const ENOUGH = 4;  // ticks with a text

  // Places as near as they can be to the wanted ones, a gap apart, not above the most and not below the least: the mean of
  // all that push each other.
  function apart(wanted, gap, most = Infinity, least = -Infinity) {
    const order = wanted.map((_, index) => index).sort((a, b) => wanted[a] - wanted[b]);
    const blocks = [];
    order.forEach((index, rank) => {
      let block = { sum: wanted[index] - gap * rank, members: [index] };
      while (blocks.length && mean(blocks.at(-1)) > mean(block)) {
        const before = blocks.pop();
        block = { sum: before.sum + block.sum, members: [...before.members, ...block.members] };
      }
      blocks.push(block);
    });
    const places = [];
    blocks.flatMap((block) => block.members.map((index) => [index, mean(block)])).forEach(([index, at], rank) => {
      places[index] = Math.max(Math.min(at + gap * rank, most - gap * (wanted.length - 1 - rank)), least + gap * rank);
    });
    return places;
  }

  const mean = (block) => block.sum / block.members.length;

  // Whole powers of ten where there are enough of them, else 1, 2 and 5 times these, else even steps between.
  function logTicks(low, high) {
    for (const mantissas of [[1], [1, 2, 5]]) {
      const every = mantissas.length > 1 ? 1 : Math.ceil((Math.log10(high) - Math.log10(low)) / 8);
      const powers = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
        if (power % every === 0) powers.push(power);
      }
      const major = powers.flatMap((power) => mantissas.map((mantissa) => Number(`${mantissa}e${power}`)))
        .filter((tick) => tick >= low && tick <= high);
      if (major.length >= ENOUGH) return { major, minor: [] };
    }
    const rough = (high - low) / 8, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((mantissa) => mantissa * power).find((size) => size >= rough);
    const major = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) major.push(Number(tick.toPrecision(8)));
    return { major, minor: [] };
  }

  // The inner part of a plot in pixels, from its lower left corner.
  class Sheet {
    constructor(chart, y, seen, width, height, letters) {
      this.y = y;
      this.last = Math.max(2, ...chart.lines.map((line) => (line.steps ?? chart.steps).at(-1) ?? 1));
      this.wide = Math.max(60, width - AXES.left - AXES.right);
      this.tall = height - AXES.above - AXES.below;
      const room = letters ? Math.max(0.14, (8 * letters) / (this.wide - 8 * letters)) : 0.02;
      this.x = { start: 1 - 0.02 * this.last, end: (1 + room) * this.last };
      this.bounds = chart.bounds.filter(seen).map((bound) => this.up(y.height(bound.value)));
      this.curves = chart.lines.filter(seen).map((line) => {
        const steps = line.steps ?? chart.steps;
        const points = line.values.map((value, row) => [steps[row], value === null ? null : y.height(value)]);
        return points.filter(([, height]) => height !== null).map(([step, at]) => [this.across(step), this.up(at)]);
      });
      this.taken = [];
    }

    up(height) {
      const { scaled, start, end } = this.y;
      return ((scaled(height) - scaled(start)) / (scaled(end) - scaled(start))) * this.tall;
    }

    across(step) {
      return ((step - this.x.start) / (this.x.end - this.x.start)) * this.wide;
    }

    // A text that is no longer than the plot is wide.
    fitted(text) {
      const most = Math.floor((this.across(this.last) - this.across(1)) / LETTER);
      return text.length <= most ? text : `${text.slice(0, Math.max(0, most - 1))}…`;
    }

    // Of the places along a limit, over and under it, the first that the least runs through.
    freeOf(text, height) {
      const long = LETTER * text.length, at = this.up(height);
      const ends = [["right", this.last], ["left", 1], ["center", this.last / 2]];
      const places = ends.flatMap(([align, step]) => [true, false].map((above) => {
        const x = this.across(step) - { left: 0, center: 0.5, right: 1 }[align] * long, low = above ? at + 2 : at - 2 - LINE;
        const box = { left: x, right: x + long, low, high: low + LINE };
        return { align, step, above, box, crossed: this.crossed(box) };
      }));
      const best = places.reduce((found, place) => (place.crossed < found.crossed ? place : found));
      this.taken.push(best.box);
      return best;
    }

    crossed(box) {
      const meets = (a, b) => Math.max(a[0], b[0]) >= box.left && Math.min(a[0], b[0]) <= box.right
        && Math.max(a[1], b[1]) >= box.low && Math.min(a[1], b[1]) <= box.high;
      const curves = this.curves.map((points) => points.filter((point, row) => meets(point, points[row + 1] ?? point)).length);
      const limits = this.bounds.filter((at) => at > box.low && at < box.high).length;
      const others = this.taken.filter((o) => o.left < box.right && box.left < o.right && o.low < box.high && box.low < o.high);
      const outside = box.low < 0 || box.high > this.tall || box.left < 0 || box.right > this.wide;
      return curves.reduce((sum, count) => sum + count, 0) + 20 * limits + 1000 * others.length + (outside ? 500 : 0);
    }
  }

  return { apart, logTicks, Sheet };
})();
