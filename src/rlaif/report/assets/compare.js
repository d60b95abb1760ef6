// The same problem over the run: every answer as a dot, and two of them side by side.
const bandColour = (number) => `var(--${DATA.bands.names[column('band', number)]}-fill)`;

// The middle one by reward, which stands for its episode better than a lucky best would. Those with code are preferred.
function typical(numbers) {
  const scored = numbers.filter((number) => column('reward', number) !== null);
  const known = scored.filter(hasDetail);
  const pool = (known.length ? known : scored.length ? scored : numbers).slice().sort((a, b) => column('reward', a) - column('reward', b));
  return pool[pool.length >> 1];
}

function historyView(number) {
  const all = attemptsOf(number);
  if (all.length < 2) return [];
  const episodes = [...new Set(all.map((other) => column('episode', other)))];
  const of = (episode) => all.filter((other) => column('episode', other) === episode);
  const early = typical(of(episodes[0]));
  const late = episodes.length > 1 ? typical(of(episodes[episodes.length - 1])) : all.find((other) => other !== early);
  const sides = node('div', { class: 'sides' }, side('Early', early, all), side('Late', late, all));
  const title = node('h3', { id: 'early-late' }, 'This problem, early and late');
  const note = episodes.length > 1 ? `${all.length} answers in ${episodes.length} episodes; each side opens with the middle answer of its episode.` : `${all.length} answers, all of episode ${episodes[0]}.`;
  return [title, node('p', { class: 'sub' }, note), strip(all, number), sides];
}

function strip(all, chosen) {
  const shown = all.length > 1500 ? all.filter((_, i) => i % Math.ceil(all.length / 1500) === 0) : all;
  const width = 640, height = 92, left = 26, right = width - 8;
  const first = column('episode', all[0]), last = column('episode', all[all.length - 1]);
  const x = (e) => (last === first ? (left + right) / 2 : left + 6 + ((e - first) / (last - first)) * (right - left - 12));
  const y = (r) => 74 - r * 66;
  const svg = node('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': 'Rewards of all answers to this problem, by episode' });
  for (const level of [0, 0.5, 1]) svg.append(node('line', { x1: left, x2: right, y1: y(level), y2: y(level), stroke: 'var(--line)' }), node('text', { x: left - 6, y: y(level) + 4, 'text-anchor': 'end' }, String(level)));
  svg.append(node('text', { x: x(first), y: 90, 'text-anchor': 'middle' }, String(first)), last > first ? node('text', { x: x(last), y: 90, 'text-anchor': 'middle' }, String(last)) : '');
  shown.forEach((other) => {
    if (column('reward', other) === null) return;
    // a fixed shake by number keeps equal rewards of one episode apart
    const shake = (((other * 37) % 11) - 5) * Math.min(1, 60 / shown.length);
    const dot = node('circle', { cx: x(column('episode', other)) + shake, cy: y(column('reward', other)), r: other === chosen ? 6 : 4, fill: bandColour(other), opacity: other === chosen ? 1 : 0.75, stroke: other === chosen ? 'var(--ink)' : 'none' });
    dot.addEventListener('click', () => select(other));
    svg.append(dot);
  });
  return node('div', { class: 'strip' }, svg);
}

function side(title, start, all) {
  const pick = node('select', { 'aria-label': `${title} answer` });
  for (const other of all.slice(0, 400)) pick.append(node('option', { value: other }, `episode ${column('episode', other)} · reward ${column('reward', other) === null ? '–' : column('reward', other).toFixed(2)}`));
  if (![...pick.options].some((option) => Number(option.value) === start)) pick.append(node('option', { value: start }, `episode ${column('episode', start)} · reward ${column('reward', start)}`));
  pick.value = String(start);
  const body = node('div');
  const show = () => {
    const number = Number(pick.value), detail = detailOf(number);
    const score = detail && detail.j && typeof detail.j.score === 'number' ? ` · judge ${detail.j.score.toFixed(2)}` : '';
    const tests = column('total', number) ? `${column('passed', number)} of ${column('total', number)} tests` : DATA.outcomes[column('outcome', number)];
    body.replaceChildren(node('p', { class: 'sum' }, `${tests}${score}`), detail ? codeBlock(detail.c || '(no code)') : node('p', { class: 'sub' }, `line ${number + 1} of rollouts.jsonl`));
  };
  pick.addEventListener('change', show);
  show();
  return node('div', {}, node('h3', {}, title), pick, body);
}
