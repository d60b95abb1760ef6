// Starts the page: charts, filters, keys, theme, and reloading while the run goes on.
const DATA = JSON.parse(document.getElementById('report-data').textContent);
const store = (area, key, value) => { try { if (value === undefined) return area().getItem(key); area().setItem(key, value); } catch { /* private windows may refuse */ } return null; };
const session = () => window.sessionStorage, local = () => window.localStorage;
const FIELDS = { q: 'f-text', p: 'f-problem', e: 'f-from', f: 'f-to', o: 'f-outcome', a: 'f-min', b: 'f-max', s: 'f-sort' };

// -- state lives in the address, so that a reload or a bookmark shows the same thing ----------------------------------------------
let restoring = true;
function saveState() {
  if (restoring) return;
  const state = new URLSearchParams();
  for (const [key, id] of Object.entries(FIELDS)) if (byId(id).value && !(key === 's' && byId(id).value === 'new')) state.set(key, byId(id).value);
  if (chosen >= 0) state.set('r', String(chosen));
  if (byId('browser').classList.contains('reading')) state.set('v', '1');
  history.replaceState(null, '', state.size ? `#~${state}` : location.pathname + location.search);
}
function restoreState() {
  const state = new URLSearchParams(location.hash.startsWith('#~') ? location.hash.slice(2) : '');
  for (const [key, id] of Object.entries(FIELDS)) if (state.has(key)) byId(id).value = state.get(key);
  apply();
  const number = state.has('r') ? Number(state.get('r')) : -1;
  if (number >= 0 && number < DATA.columns.episode.length) select(number, { read: state.has('v') });
  else if (matches.length) select(matches[0], { read: false });
  const saved = JSON.parse(store(session, `scroll:${location.pathname}`) || 'null');
  if (saved) { window.scrollTo(0, saved.page); byId('list').scrollTop = saved.list; byId('detail').scrollTop = saved.detail; }
  restoring = false;
}
const saveScroll = () => store(session, `scroll:${location.pathname}`, JSON.stringify({ page: window.scrollY, list: byId('list').scrollTop, detail: byId('detail').scrollTop }));

// -- charts ------------------------------------------------------------------------------------------------------------------------
const COLOURS = ['var(--p1)', 'var(--p2)', 'var(--p3)', 'var(--p4)', 'var(--p5)'];
function drawCharts() {
  const { episodes, values, low, high } = DATA.series;
  if (!episodes.length) return;
  const alarms = DATA.alarms.map((alarm) => alarm.episode);
  const line = (name, colour = COLOURS[0], dashed = false, title = null) => ({ name: title || DATA.metrics[name].title, values: values[name], low: dashed ? null : low[name], high: dashed ? null : high[name], colour, dashed });
  const spec = (name, extra = []) => ({ ...DATA.metrics[name], xs: episodes, alarms, group: 'episodes', pick: showEpisode, series: [line(name), ...extra], domain: name === 'reward_mean' ? [0, 1] : null });
  const used = new Set(DATA.times);
  for (const name of DATA.charts) {
    used.add(name);
    const extra = [];
    if (name === 'pass_rate' && values.held_out_pass_rate) { extra.push(line('held_out_pass_rate', COLOURS[3], true, 'Hidden tests')); used.add('held_out_pass_rate'); }
    chartCard(byId('charts'), spec(name, extra));
    if (name === 'pass_rate') bandChart();
  }
  const rest = Object.keys(values).filter((name) => !used.has(name) && values[name].some((v) => v !== null));
  byId('more-box').hidden = !rest.length;
  byId('more-box').addEventListener('toggle', () => { if (!byId('more').children.length) rest.forEach((name) => chartCard(byId('more'), { ...spec(name), height: 120, group: null })); });
  if (smoothingWindow(episodes.length) > 1) byId('smoothing').textContent = `Lines are means of ${smoothingWindow(episodes.length)} neighbouring episodes, dots the episodes themselves.`;
  const trends = DATA.series.trends.map((name) => DATA.metrics[name].title);
  if (trends.length) byId('smoothing').append(` ${trends.join(', ')}: the 95% interval of the course over seven episodes.`);
  if (DATA.times.length) {
    const series = DATA.times.map((name, i) => ({ name: DATA.metrics[name].title, values: values[name], colour: COLOURS[i] }));
    new Chart(byId('time-chart'), { title: 'Seconds per episode', unit: 'seconds', xs: episodes, stacked: true, series, height: 150, pick: showEpisode });
    byId('time-chart').after(legend(series));
  }
}
function bandChart() {
  const { episodes, counts, names } = DATA.bands;
  const totals = counts.map((row) => row.reduce((a, b) => a + b, 0) || 1);
  const colours = { good: 'var(--good-fill)', okay: 'var(--okay-fill)', poor: 'var(--poor-fill)', none: 'var(--none-fill)' };
  const series = ['good', 'okay', 'poor', 'none'].map((band) => ({ name: band === 'none' ? 'unscored' : band, colour: colours[band], values: counts.map((row, i) => row[names.indexOf(band)] / totals[i]) })).filter((one) => one.values.some((v) => v > 0));
  if (series.length) chartCard(byId('charts'), { title: 'Reward bands', unit: 'share', meaning: 'Share of answers in each band: good 0.6 to 1, okay 0.3 to 0.6, poor below 0.3.', xs: episodes, stacked: true, domain: [0, 1], series, group: 'episodes', pick: showEpisode });
}
function drawHeldOut() {
  const points = DATA.held_out;
  if (!points.length) return;
  const take = (key) => points.map((point) => point[key]);
  // before and after the warm start share episode 0, so the points stand side by side under their names
  new Chart(byId('held-out-chart'), { title: 'Held-out success', unit: 'share', exact: true, xs: points.map((_, i) => i), labels: take('label'), ticks: take('short'), series: [{ name: 'success', values: take('value'), low: take('low'), high: take('high'), colour: COLOURS[0] }], height: 190 });
}

// -- filters -----------------------------------------------------------------------------------------------------------------------
function wireFilters() {
  const counts = DATA.problems.map(() => 0);
  DATA.columns.problem.forEach((problem) => { counts[problem]++; });
  const order = DATA.problems.map((_, i) => i).sort((a, b) => (DATA.problems[a].id < DATA.problems[b].id ? -1 : 1));
  byId('f-problem').append(...order.map((i) => node('option', { value: i }, `${visible(DATA.problems[i].id)} (${counts[i]})`)));
  const present = new Set(DATA.columns.outcome);
  DATA.outcomes.forEach((name, i) => { if (present.has(i)) byId('f-outcome').append(node('option', { value: name }, OUTCOME_WORDS[name])); });
  for (const [name, words] of Object.entries(SPECIAL)) byId('f-outcome').append(node('option', { value: name }, words));
  byId('filters').addEventListener('submit', (event) => event.preventDefault());
  let timer = 0;
  byId('filters').addEventListener('input', (event) => {
    searchTicket++;
    clearTimeout(timer);
    const typed = event.target.id === 'f-text';
    timer = setTimeout(() => { apply(); if (byId('f-text').value && typed) searchCode(byId('f-text').value.trim()); }, typed ? 120 : 0);
  });
  byId('f-clear').addEventListener('click', clearFilters);
  byId('list').addEventListener('scroll', () => requestAnimationFrame(() => drawRows()), { passive: true });
  byId('list').addEventListener('click', (event) => { const row = event.target.closest('.row'); if (row) select(Number(row.dataset.number)); });
  for (const link of document.querySelectorAll('button[data-episode]')) link.addEventListener('click', () => showEpisode(Number(link.dataset.episode)));
}
function clearFilters() {
  for (const id of Object.values(FIELDS)) byId(id).value = id === 'f-sort' ? 'new' : '';
  apply();
}

// -- keys --------------------------------------------------------------------------------------------------------------------------
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId('help').open) return;
  const target = event.target, typing = target.matches('input, select, textarea');
  if (event.key === 'Escape') {
    if (target.id === 'f-text') { target.value = ''; apply(); target.blur(); } else if (typing) target.blur(); else closeDetail();
    return;
  }
  if (typing) return;
  const inList = target === document.body || target.closest('#browser');
  const actions = {
    j: () => move(1), k: () => move(-1), ArrowDown: inList && target.id === 'list' ? () => move(1) : null, ArrowUp: inList && target.id === 'list' ? () => move(-1) : null,
    PageDown: target.id === 'list' ? () => move(10) : null, PageUp: target.id === 'list' ? () => move(-10) : null, Home: target.id === 'list' ? () => move(-matches.length) : null, End: target.id === 'list' ? () => move(matches.length) : null,
    Enter: target.id === 'list' ? () => select(chosen < 0 ? matches[0] : chosen, { focus: true }) : null,
    '/': () => { byId('f-text').focus(); byId('f-text').scrollIntoView({ block: 'center' }); }, c: showHistory,
    g: () => { byId('answers').scrollIntoView(); byId('list').focus({ preventScroll: true }); }, t: toggleTheme, '?': () => byId('help').showModal(),
  };
  const action = actions[event.key];
  if (action) { event.preventDefault(); action(); }
}

function showHistory() {
  const place = byId('early-late'), detail = byId('detail');
  if (!place) return;
  byId('browser').classList.add('reading');
  // beside the list the detail scrolls in itself; on a phone the page does
  if (getComputedStyle(detail).overflowY === 'auto' && detail.scrollHeight > detail.clientHeight + 2) detail.scrollTop += place.getBoundingClientRect().top - detail.getBoundingClientRect().top - 12;
  else place.scrollIntoView({ block: 'start' });
}

// -- theme -------------------------------------------------------------------------------------------------------------------------
function toggleTheme() {
  const dark = (document.documentElement.style.colorScheme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
  document.documentElement.style.colorScheme = dark ? 'light' : 'dark';
  store(local, 'rlaif-theme', dark ? 'light' : 'dark');
}

// -- while the run goes on ---------------------------------------------------------------------------------------------------------
function watchRun() {
  const { running, refresh_s: every, built, episode_s: episode } = DATA.run;
  if (!running) return;
  let last = Date.now(), wanted = store(session, 'rlaif-refresh') !== 'off';
  const button = byId('refresh'), text = button.querySelector('span');
  const show = () => { text.textContent = wanted ? `every ${every} s` : 'paused'; button.setAttribute('aria-pressed', String(wanted)); };
  button.hidden = false;
  button.addEventListener('click', () => { wanted = !wanted; store(session, 'rlaif-refresh', wanted ? 'on' : 'off'); show(); });
  show();
  let touched = 0;
  for (const kind of ['pointerdown', 'keydown', 'wheel', 'touchmove', 'input']) document.addEventListener(kind, () => { touched = Date.now(); }, { passive: true });
  const silence = Date.now() / 1000 - built;
  if (silence > Math.max(600, 5 * episode)) {
    byId('stale').hidden = false;
    byId('stale').textContent = `Nothing has been heard of this run for ${Math.round(silence / 60)} minutes. If it was killed, the same command with --resume goes on from its last checkpoint.`;
  }
  setInterval(() => {
    // never under someone's hands: not while they read on, type, or have the help open, and not in a hidden tab
    if (!wanted || document.hidden || byId('help').open || Date.now() - touched < 8000 || Date.now() - last < every * 1000) return;
    last = Date.now();
    saveScroll();
    location.reload();
  }, 1000);
}

document.documentElement.style.colorScheme = store(local, 'rlaif-theme') || '';
wireFilters();
drawCharts();
drawHeldOut();
restoreState();
watchRun();
document.addEventListener('keydown', onKey);
byId('theme').addEventListener('click', toggleTheme);
byId('help-open').addEventListener('click', () => byId('help').showModal());
window.addEventListener('pagehide', saveScroll);
