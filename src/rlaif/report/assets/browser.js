// The list of all answers: filters, order, a list that only draws the rows in view, and the choice of one.
const ROW = 52;
const OUTCOME_WORDS = { passed: 'passed', failed: 'failed tests', broken: 'did not run', unscored: 'unscored', unverified: 'judge alone' };
const SPECIAL = { fooled: 'judge believed a failing one', missed: 'judge doubted a passing one', overfit: 'passed, but not the hidden tests' };
const column = (name, number) => DATA.columns[name][number];
const problemOf = (number) => DATA.problems[column('problem', number)];
const chunks = new Map();
const byId = (id) => document.getElementById(id);
let matches = [], chosen = -1, codeHits = null, codeText = '';

// Details come in blocks that are parsed when first needed, so that opening the page does not pay for all of them.
function chunkOf(index) {
  if (!chunks.has(index)) {
    const block = byId(`chunk-${index}`);
    chunks.set(index, block ? JSON.parse(block.textContent) : {});
  }
  return chunks.get(index);
}
const detailOf = (number) => chunkOf(Math.floor(number / DATA.chunk))[number];
const hasDetail = (number) => DATA.kept === DATA.columns.episode.length || detailOf(number) !== undefined;

let attemptIndex = null;
function attemptsOf(number) {
  if (!attemptIndex) {
    attemptIndex = DATA.problems.map(() => []);
    DATA.columns.problem.forEach((problem, other) => attemptIndex[problem].push(other));
  }
  return attemptIndex[column('problem', number)];
}

function readFilters() {
  const value = (id) => byId(id).value.trim(), figure = (id) => (value(id) === '' || Number.isNaN(Number(value(id))) ? null : Number(value(id)));
  return { text: value('f-text'), problem: value('f-problem'), from: figure('f-from'), to: figure('f-to'), outcome: value('f-outcome'), min: figure('f-min'), max: figure('f-max'), sort: byId('f-sort').value };
}

function test(outcome, number) {
  const passed = column('outcome', number) === 0, judge = column('judge', number);
  if (outcome === 'fooled') return judge !== null && judge >= 0.5 && !passed && column('outcome', number) < 3;
  if (outcome === 'missed') return judge !== null && judge < 0.5 && passed;
  if (outcome === 'overfit') return passed && column('held', number) === 0;
  return DATA.outcomes[column('outcome', number)] === outcome;
}

function filterNumbers(filters) {
  const { episode, reward, problem } = DATA.columns, text = filters.text.toLowerCase();
  const hit = text ? DATA.problems.map((one) => `${one.id} ${one.topic} ${one.prompt}`.toLowerCase().includes(text)) : null;
  const wanted = filters.problem === '' ? -1 : Number(filters.problem);
  const result = [];
  for (let number = 0; number < episode.length; number++) {
    if (wanted >= 0 && problem[number] !== wanted) continue;
    if (filters.from !== null && episode[number] < filters.from) continue;
    if (filters.to !== null && episode[number] > filters.to) continue;
    if (filters.min !== null && (reward[number] === null || reward[number] < filters.min)) continue;
    if (filters.max !== null && (reward[number] === null || reward[number] > filters.max)) continue;
    if (hit && !hit[problem[number]] && !(codeHits && codeText === text && codeHits.has(number))) continue;
    if (filters.outcome && !test(filters.outcome, number)) continue;
    result.push(number);
  }
  const value = (number) => (reward[number] === null ? -1 : reward[number]);
  const doubt = (number) => (column('judge', number) === null || column('outcome', number) > 2 ? -1 : Math.abs(column('judge', number) - (column('outcome', number) === 0 ? 1 : 0)));
  const orders = { new: (a, b) => episode[b] - episode[a] || a - b, old: (a, b) => a - b, best: (a, b) => value(b) - value(a) || b - a, worst: (a, b) => value(a) - value(b) || b - a, doubt: (a, b) => doubt(b) - doubt(a) || b - a };
  return result.sort(orders[filters.sort] || orders.new);
}

// Search in code goes through the blocks a few at a time, so that typing stays smooth with 50,000 answers.
let searchTicket = 0;
async function searchCode(text) {
  const ticket = ++searchTicket, wanted = text.toLowerCase();
  if (wanted.length < 2) return;
  const found = new Set(), total = Math.ceil(DATA.columns.episode.length / DATA.chunk);
  let rest = performance.now();
  for (let index = 0; index < total; index++) {
    for (const [number, detail] of Object.entries(chunkOf(index))) if (detail.c && detail.c.toLowerCase().includes(wanted)) found.add(Number(number));
    if (performance.now() - rest > 12) {
      await new Promise((resolve) => { setTimeout(resolve); });
      if (ticket !== searchTicket) return;
      rest = performance.now();
    }
  }
  codeHits = found;
  codeText = wanted;
  apply(true);
}

function apply(keep = false) {
  const filters = readFilters();
  matches = filterNumbers(filters);
  const list = byId('list'), total = DATA.columns.episode.length;
  byId('spacer').style.height = `${Math.max(matches.length, 1) * ROW}px`;
  if (!keep) list.scrollTop = 0;
  const mean = matches.reduce((sum, number) => sum + (column('reward', number) ?? 0), 0) / (matches.filter((number) => column('reward', number) !== null).length || 1);
  byId('count').textContent = matches.length ? `${matches.length.toLocaleString('en')} of ${total.toLocaleString('en')} answers, mean reward ${mean.toFixed(2)}` : '';
  drawRows(true);
  saveState();
}

function drawRows(force = false) {
  const list = byId('list'), spacer = byId('spacer');
  const from = Math.max(0, Math.floor(list.scrollTop / ROW) - 6), to = Math.min(matches.length, from + Math.ceil((list.clientHeight || 600) / ROW) + 14);
  if (!force && spacer.dataset.range === `${from}-${to}`) return;
  spacer.dataset.range = `${from}-${to}`;
  if (!matches.length) {
    const words = DATA.columns.episode.length ? 'No answer fits these filters.' : 'No answers yet: the first episode is still running.';
    spacer.replaceChildren(node('p', { class: 'empty' }, words));
    return;
  }
  spacer.replaceChildren(...matches.slice(from, to).map((number, offset) => rowOf(number, from + offset)));
}

function rowOf(number, place) {
  const reward = column('reward', number), outcome = DATA.outcomes[column('outcome', number)], judge = column('judge', number), problem = problemOf(number);
  const ran = outcome === 'passed' || outcome === 'failed';
  const tests = ran ? `${column('passed', number)}/${column('total', number)} tests` : OUTCOME_WORDS[outcome];
  const row = node('div', { class: `row ${DATA.bands.names[column('band', number)]}${number === chosen ? ' on' : ''}`, role: 'option', id: `row-${number}`, 'aria-selected': String(number === chosen), 'aria-setsize': matches.length, 'aria-posinset': place + 1, 'data-number': number },
    node('b', {}, reward === null ? '–' : reward.toFixed(2)), node('span', { class: 'what' },
      node('span', {}, node('span', {}, visible(problem.prompt.trim().split('\n')[0] || problem.id)), node('span', { class: 'ep' }, `ep ${column('episode', number)}`)),
      node('small', {}, node('span', {}, visible(problem.id)), node('span', {}, judge === null ? tests : `${tests} · judge ${judge.toFixed(2)}`))));
  row.style.top = `${place * ROW}px`;
  return row;
}

function select(number, { read = true, focus = false } = {}) {
  if (number < 0 || number >= DATA.columns.episode.length) return;
  chosen = number;
  const place = matches.indexOf(number), list = byId('list'), detail = byId('detail');
  if (place >= 0) {
    if (place * ROW < list.scrollTop) list.scrollTop = place * ROW;
    else if ((place + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (place + 1) * ROW - list.clientHeight;
    list.setAttribute('aria-activedescendant', `row-${number}`);
  }
  drawRows(true);
  detail.replaceChildren(...renderDetail(number, detailOf(number)));
  detail.scrollTop = 0;
  if (read) byId('browser').classList.add('reading');
  if (focus) detail.focus();
  saveState();
}

function move(steps) {
  if (!matches.length) return;
  const place = matches.indexOf(chosen);
  select(matches[Math.max(0, Math.min(matches.length - 1, place < 0 ? 0 : place + steps))], { read: byId('browser').classList.contains('reading') });
}

function backButton() {
  const button = node('button', { type: 'button', class: 'back' }, '← All answers');
  button.addEventListener('click', closeDetail);
  return button;
}
function closeDetail() { byId('browser').classList.remove('reading'); byId('list').focus({ preventScroll: true }); }

function showEpisode(episode) {
  byId('f-from').value = byId('f-to').value = String(episode);
  apply();
  byId('answers').scrollIntoView();
}
