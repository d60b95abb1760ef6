// The page that compares runs: each figure as one chart with a line a run.
const DATA = JSON.parse(document.getElementById('report-data').textContent);
const COLOURS = ['var(--p1)', 'var(--p4)', 'var(--p2)', 'var(--p3)', 'var(--p5)'];
const all = [...new Set(DATA.runs.flatMap((run) => run.episodes))].sort((a, b) => a - b);
const spread = (run, values) => { const at = new Map(run.episodes.map((episode, i) => [episode, values && values[i]])); return all.map((episode) => at.get(episode) ?? null); };
for (const name of all.length ? DATA.charts : []) {
  const series = DATA.runs.map((run, i) => ({ name: visible(DATA.names[i]), colour: COLOURS[i % COLOURS.length], values: spread(run, run.values[name]), low: run.low[name] ? spread(run, run.low[name]) : null, high: run.high[name] ? spread(run, run.high[name]) : null }));
  chartCard(document.getElementById('charts'), { ...DATA.metrics[name], xs: all, series, group: 'episodes', manyRuns: true, domain: name === 'reward_mean' ? [0, 1] : null });
}
const theme = () => { const root = document.documentElement.style; const dark = (root.colorScheme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark'; root.colorScheme = dark ? 'light' : 'dark'; };
document.getElementById('theme').addEventListener('click', theme);
document.addEventListener('keydown', (event) => { if (event.key === 't' && !event.ctrlKey && !event.metaKey) theme(); });
