// Small line and stacked-bar charts as SVG, drawn to the width they have, with one cursor shared by all of them.
const CHARTS = [];
const FORMATS = {
  share: (v) => `${(100 * v).toFixed(v > 0 && v < 0.1 ? 1 : 0)}%`,
  seconds: (v) => (v < 10 ? `${v.toFixed(1)} s` : v < 120 ? `${Math.round(v)} s` : `${Math.round(v / 60)} min`),
  number: (v) => (v === 0 ? '0' : Math.abs(v) < 0.001 || Math.abs(v) >= 1e5 ? v.toExponential(1) : Math.abs(v) < 10 ? v.toFixed(Math.abs(v) < 0.1 ? 3 : 2) : v.toFixed(0)),
  usd: (v) => `$${v.toFixed(v && v < 0.1 ? 4 : 2)}`,
};
FORMATS.nats = FORMATS.number;
FORMATS.reward = (v) => v.toFixed(2);
FORMATS.count = FORMATS.tokens = FORMATS['tokens/s'] = (v) => (Number.isInteger(v) || v >= 100 ? Math.round(v).toLocaleString('en') : v.toFixed(1));
const format = (unit, value) => (value === null || value === undefined ? '–' : (FORMATS[unit] || FORMATS.number)(value));

function niceTicks(low, high, count) {
  const span = high - low || 1, raw = span / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-6; tick += step) ticks.push(Math.abs(tick) < step * 1e-6 ? 0 : tick);
  return ticks;
}

// A mean over the neighbouring episodes, so that long runs show their course and not their noise.
function smooth(values, window) {
  if (window < 2) return values;
  const half = window >> 1;
  return values.map((value, index) => {
    const near = values.slice(Math.max(0, index - half), index + half + 1).filter((v) => v !== null && v !== undefined);
    return value === null || value === undefined || !near.length ? null : near.reduce((a, b) => a + b, 0) / near.length;
  });
}
const smoothingWindow = (count) => (count <= 30 ? 1 : Math.max(3, Math.round(count / 20)));

function linePath(points) {
  let path = '', pen = false;
  for (const point of points) {
    if (!point) { pen = false; continue; }
    path += `${pen ? 'L' : 'M'}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
    pen = true;
  }
  return path;
}

class Chart {
  // spec: {title, unit, meaning, xs, series: [{name, values, low, high, colour}], stacked, domain, alarms, pick(x)}
  constructor(host, spec) {
    Object.assign(this, { host, spec, width: 0, height: spec.height || 168 });
    this.window = spec.stacked || spec.exact ? 1 : smoothingWindow(spec.xs.length);
    CHARTS.push(this);
    new ResizeObserver(() => { if (Math.abs(host.clientWidth - this.width) > 1) this.draw(); }).observe(host);
    this.draw();
  }

  bounds() {
    const { series, stacked, domain, xs } = this.spec;
    if (domain) return domain;
    if (stacked) return [0, Math.max(...xs.map((_, i) => series.reduce((sum, one) => sum + (one.values[i] || 0), 0))) * 1.02 || 1];
    const all = series.flatMap((one) => [...one.values, ...(one.low || []), ...(one.high || [])]).filter((v) => v !== null && v !== undefined);
    let low = Math.min(...all), high = Math.max(...all);
    if (low > 0 && low < high * 0.6) low = 0;
    const pad = (high - low || Math.abs(high) || 1) * 0.06;
    return [low === 0 ? 0 : low - pad, high + pad];
  }

  draw() {
    const { spec, host, height } = this;
    this.width = host.clientWidth || 320;
    const [low, high] = this.bounds(), ticks = niceTicks(low, high, 4);
    const labels = ticks.map((tick) => format(spec.unit, tick));
    const box = { left: 12 + 6.4 * Math.max(...labels.map((l) => l.length)), right: this.width - 10, top: 8, bottom: height - 20 };
    const first = spec.xs[0], last = spec.xs[spec.xs.length - 1];
    const bar = spec.stacked ? (box.right - box.left) / spec.xs.length : 0;
    this.x = (v) => (spec.stacked ? box.left + bar * (spec.xs.indexOf(v) + 0.5) : last === first ? (box.left + box.right) / 2 : box.left + ((v - first) / (last - first)) * (box.right - box.left));
    this.y = (v) => box.bottom - ((v - low) / (high - low)) * (box.bottom - box.top);
    this.box = box;
    const svg = node('svg', { height, viewBox: `0 0 ${this.width} ${height}`, role: 'img', 'aria-label': this.words() });
    ticks.forEach((tick, i) => svg.append(node('line', { class: 'grid', x1: box.left, x2: box.right, y1: this.y(tick), y2: this.y(tick) }), node('text', { x: box.left - 6, y: this.y(tick) + 4, 'text-anchor': 'end' }, labels[i])));
    const shown = spec.xs.length > 1 ? niceTicks(first, last, Math.max(2, Math.min(6, this.width / 80))).filter((t) => Number.isInteger(t) && t >= first) : [first];
    const names = (tick) => (spec.ticks ? spec.ticks[tick] : String(tick));
    const anchor = (tick) => (!spec.ticks || first === last ? 'middle' : tick === first ? 'start' : tick === last ? 'end' : 'middle');
    for (const tick of shown) if (spec.xs.includes(tick)) svg.append(node('text', { x: this.x(tick), y: height - 4, 'text-anchor': anchor(tick) }, names(tick)));
    for (const alarm of spec.alarms || []) if (alarm >= first && alarm <= last) svg.append(node('line', { class: 'alarm', x1: this.x(alarm), x2: this.x(alarm), y1: box.top, y2: box.bottom }));
    if (spec.stacked) this.drawBars(svg, bar); else this.drawLines(svg);
    this.cursor = node('line', { class: 'cursor', y1: box.top, y2: box.bottom, visibility: 'hidden' });
    svg.append(this.cursor);
    this.tip = node('div', { class: 'tip', hidden: true });
    host.replaceChildren(svg, this.tip);
    svg.addEventListener('pointermove', (event) => this.hover(this.nearest(event)));
    svg.addEventListener('pointerleave', () => CHARTS.forEach((chart) => chart.leave()));
    if (spec.pick) svg.addEventListener('click', (event) => spec.pick(spec.xs[this.nearest(event)]));
  }

  drawLines(svg) {
    const { xs, series } = this.spec;
    for (const one of series) {
      const at = (values) => values.map((v, i) => (v === null || v === undefined ? null : [this.x(xs[i]), this.y(v)]));
      if (one.low) {
        const low = at(smooth(one.low, this.window)), high = at(smooth(one.high, this.window));
        let run = [];
        const flush = () => {
          if (run.length > 1) svg.append(node('path', { d: `${linePath(run.map((i) => high[i]))}${linePath(run.map((i) => low[i]).reverse()).replace('M', 'L')}Z`, fill: one.colour, opacity: 0.14 }));
          // one episode alone has no area: its interval is a stroke
          if (run.length === 1) svg.append(node('line', { x1: low[run[0]][0], x2: low[run[0]][0], y1: low[run[0]][1], y2: high[run[0]][1], stroke: one.colour, 'stroke-width': 5, opacity: 0.2 }));
          run = [];
        };
        low.forEach((point, i) => (point && high[i] ? run.push(i) : flush()));
        flush();
      }
      const points = at(one.values);
      if (this.window > 1 && xs.length <= 600) for (const point of points) if (point) svg.append(node('circle', { cx: point[0], cy: point[1], r: 1.5, fill: one.colour, opacity: 0.35 }));
      svg.append(node('path', { d: linePath(at(smooth(one.values, this.window)).filter(Boolean)), fill: 'none', stroke: one.colour, 'stroke-width': 2, 'stroke-linejoin': 'round', 'stroke-dasharray': one.dashed ? '5 4' : null }));
      if (xs.length <= 30) for (const point of points) if (point) svg.append(node('circle', { cx: point[0], cy: point[1], r: 2.6, fill: one.colour }));
    }
  }

  drawBars(svg, bar) {
    const { xs, series } = this.spec;
    const gap = bar > 5 ? Math.min(3, bar * 0.18) : 0, paths = series.map(() => '');
    xs.forEach((x, i) => {
      let base = 0;
      series.forEach((one, s) => {
        const value = one.values[i] || 0;
        if (!value) return;
        const left = this.box.left + bar * i + gap / 2, top = this.y(base + value), foot = this.y(base);
        paths[s] += `M${left.toFixed(2)} ${top.toFixed(1)}H${(left + bar - gap).toFixed(2)}V${foot.toFixed(1)}H${left.toFixed(2)}Z`;
        base += value;
      });
    });
    series.forEach((one, s) => svg.append(node('path', { d: paths[s], fill: one.colour })));
  }

  nearest(event) {
    const place = event.clientX - this.host.getBoundingClientRect().left;
    let best = 0;
    this.spec.xs.forEach((x, i) => { if (Math.abs(this.x(x) - place) < Math.abs(this.x(this.spec.xs[best]) - place)) best = i; });
    return best;
  }

  hover(index) {
    const { spec } = this, x = spec.xs[index];
    for (const chart of CHARTS) if (chart.spec.group && chart.spec.group === spec.group) chart.point(x);
    this.point(x);
    const lines = [spec.labels ? spec.labels[index] : `Episode ${x}`];
    for (const one of spec.series) {
      const value = one.values[index];
      if (value === null || value === undefined) continue;
      const range = one.low && one.low[index] !== null && one.low[index] !== undefined ? ` (${format(spec.unit, one.low[index])} to ${format(spec.unit, one.high[index])})` : '';
      lines.push(`${spec.series.length > 1 ? `${one.name} ` : ''}${format(spec.unit, value)}${range}`);
    }
    this.tip.replaceChildren(...lines.map((line, i) => node('div', {}, i ? line : node('small', {}, line))));
    this.tip.hidden = false;
    const left = this.x(x) + 12;
    this.tip.style.top = '6px';
    this.tip.style.left = `${left + this.tip.offsetWidth > this.width ? Math.max(0, this.x(x) - this.tip.offsetWidth - 12) : left}px`;
  }

  point(x) {
    if (!this.spec.xs.includes(x)) return this.leave();
    this.cursor.setAttribute('x1', this.x(x));
    this.cursor.setAttribute('x2', this.x(x));
    this.cursor.setAttribute('visibility', 'visible');
  }

  leave() { this.cursor.setAttribute('visibility', 'hidden'); this.tip.hidden = true; }

  words() {
    const parts = this.spec.series.map((one) => {
      const values = one.values.filter((v) => v !== null && v !== undefined);
      return values.length ? `${one.name} from ${format(this.spec.unit, values[0])} to ${format(this.spec.unit, values[values.length - 1])}` : '';
    });
    return `${this.spec.title}: ${parts.filter(Boolean).join(', ')}`;
  }
}

// A chart in its card, with its title, its last value and a legend where there is more than one line.
function chartCard(host, spec) {
  const card = node('div', { class: 'chart-card', title: spec.meaning || null });
  const main = spec.series[0].values.filter((v) => v !== null && v !== undefined);
  card.append(node('div', { class: 'chart-head' }, node('h3', {}, spec.title), node('span', { class: 'now' }, spec.stacked || spec.manyRuns ? '' : format(spec.unit, main[main.length - 1]))));
  const plot = node('div', { class: 'chart' });
  card.append(plot);
  if (spec.series.length > 1) card.append(legend(spec.series));
  host.append(card);
  return new Chart(plot, spec);
}

function legend(series) {
  return node('p', { class: 'legend' }, series.map((one) => {
    const swatch = node('i', { class: 'swatch' });
    swatch.style.background = one.colour;
    return node('span', {}, swatch, one.name);
  }));
}
