// One answer in full: its reward and how it came together, the code, every test, the judge, the linter.
const ROLE = { graded: 'graded', shown: 'shown in the prompt', held_out: 'hidden' };

function section(title, ...children) {
  return [node('h3', {}, title), ...children];
}

function renderDetail(number, detail) {
  const problem = problemOf(number), reward = column('reward', number), outcome = DATA.outcomes[column('outcome', number)];
  const parts = [];
  const siblings = attemptsOf(number).filter((other) => column('episode', other) === column('episode', number));
  parts.push(node('p', { class: 'crumbs' }, backButton(), node('span', {}, `Episode ${column('episode', number)}`),
    node('span', {}, `answer ${siblings.indexOf(number) + 1} of ${siblings.length} to this problem`), detail && detail.n ? node('span', {}, `${detail.n} tokens`) : null,
    detail && detail.f === 'length' ? node('span', { class: 'no' }, 'cut off at the token limit') : null));
  parts.push(node('p', { class: 'title' }, visible(problem.prompt.trim() || problem.id)));
  parts.push(node('p', { class: 'crumbs' }, node('span', {}, visible(problem.id)), node('span', {}, visible(`${problem.topic}, ${problem.difficulty}`))));
  parts.push(...rewardView(number, detail, reward, outcome));
  if (!detail) {
    parts.push(node('p', { class: 'note' }, `The code of this answer is not in this file, to keep it small. It is line ${number + 1} of rollouts.jsonl.`));
  } else {
    parts.push(...codeView('Code', detail.c || '(no code found in the answer)'));
    if (detail.t) parts.push(...testsView(problem, detail.t));
    if (detail.h) parts.push(...hiddenView(problem, detail.h));
    if (detail.j) parts.push(...judgeView(detail.j));
    if (detail.q || detail.e !== undefined) parts.push(...qualityView(detail));
    if (detail.x) parts.push(node('details', {}, node('summary', {}, 'The answer word for word'), node('pre', { class: 'out' }, visible(detail.x))));
  }
  if (problem.reference) parts.push(node('details', {}, node('summary', {}, 'A reference solution'), codeBlock(problem.reference)));
  parts.push(...historyView(number));
  return parts;
}

function rewardView(number, detail, reward, outcome) {
  const words = {
    passed: 'passes all its tests', failed: `passes ${column('passed', number)} of ${column('total', number)} tests`, broken: 'does not run',
    unscored: 'could not be scored, and left the batch', unverified: 'has no tests: the judge alone graded it',
  }[outcome];
  const parts = [];
  if (reward !== null) {
    const marker = node('i');
    marker.style.left = `${100 * reward}%`;
    parts.push(node('div', { class: 'meter', role: 'img', 'aria-label': `Reward ${reward} of 1` }, marker), node('div', { class: 'scale' }, node('span', {}, 'poor'), node('span', {}, 'okay'), node('span', {}, 'good')));
  }
  const hidden = ['and fails hidden tests', 'and passes the hidden tests', ''][column('held', number)];
  const advantage = detail && detail.a !== undefined ? `, advantage ${detail.a < 0 ? '−' : '+'}${Math.abs(detail.a).toFixed(2)}` : '';
  parts.push(node('p', {}, node('span', { class: 'big' }, reward === null ? 'no reward' : reward.toFixed(2)), node('span', {}, `  ${words} ${hidden}${advantage}`)));
  if (detail && detail.r && detail.r.length) parts.push(...section('How the reward came together', node('ol', { class: 'steps' }, detail.r.map((reason) => node('li', {}, visible(reason))))));
  return parts;
}

function codeView(title, code) {
  const copy = node('button', { type: 'button' }, 'Copy');
  copy.addEventListener('click', () => navigator.clipboard.writeText(code).then(() => { copy.textContent = 'Copied'; }, () => { copy.textContent = 'Not allowed here'; }));
  return [node('div', { class: 'head-line' }, node('h3', {}, title), copy), codeBlock(code)];
}

function testsView(problem, tests) {
  const parts = [];
  if (tests.o) parts.push(node('p', { class: 'note warn' }, `${visible(tests.o.replaceAll('_', ' '))}${tests.m ? `: ${visible(tests.m)}` : ''}`));
  const rows = tests.r.map(([place, passed, actual, error]) => {
    const [role, input, expected, form] = typeof place === 'number' ? problem.tests[place] : place;
    const got = passed ? node('span', { class: 'same' }, form === 'code' ? 'none failed' : node('code', {}, visible(expected))) : node('code', {}, visible(error || (actual === null || actual === undefined ? 'nothing' : actual)));
    return node('tr', {}, node('td', { class: 'verdict' }, node('span', { class: passed ? 'yes' : 'no' }, passed ? '✓ pass' : '✗ fail'), ' ', node('span', { class: 'role' }, role === 'graded' ? '' : ROLE[role] || role)),
      node('td', { 'data-label': 'test' }, node('code', {}, visible(input))), node('td', { 'data-label': 'expected' }, node('code', {}, form === 'code' ? 'no assertion fails' : visible(expected))), node('td', { 'data-label': 'got' }, got));
  });
  const passed = tests.r.filter((result) => result[1]).length;
  if (rows.length) {
    const head = ['', 'Test', 'Expected', 'Got'].map((title) => node('th', { scope: 'col' }, title));
    parts.push(node('table', { class: 'tests' }, node('thead', {}, node('tr', {}, head)), node('tbody', {}, rows)));
  }
  if (tests.s) parts.push(node('details', {}, node('summary', {}, 'What it printed'), node('pre', { class: 'out' }, visible(tests.s))));
  return section(rows.length ? `Tests: ${passed} of ${rows.length} pass` : 'Tests', ...parts);
}

// Their values stand in problems.jsonl; a run keeps of them only who passed which, for nothing but the monitor may depend on them.
function hiddenView(problem, hidden) {
  const tests = problem.tests.filter(([role]) => role === 'held_out');
  const rows = hidden.map((passed, place) => {
    const [, input, expected, form] = tests[place] || ['', `test ${place + 1}`, '', 'call'];
    return node('tr', {}, node('td', { class: 'verdict' }, node('span', { class: passed ? 'yes' : 'no' }, passed ? '✓ pass' : '✗ fail')),
      node('td', { 'data-label': 'test' }, node('code', {}, visible(input))), node('td', { 'data-label': 'expected' }, node('code', {}, form === 'code' ? 'no assertion fails' : visible(expected))));
  });
  const head = ['', 'Test', 'Expected'].map((title) => node('th', { scope: 'col' }, title));
  const table = node('table', { class: 'tests' }, node('thead', {}, node('tr', {}, head)), node('tbody', {}, rows));
  const passed = hidden.filter(Boolean).length;
  return [node('details', { open: passed < hidden.length && passed > 0 ? '' : null }, node('summary', {}, `Hidden tests: ${passed} of ${hidden.length} pass`),
    node('p', { class: 'sub' }, 'They never touch the reward: the monitor compares the judge with them.'), table)];
}

function meterRows(pairs) {
  return node('div', { class: 'bars' }, pairs.flatMap(([name, value, strong, words]) => {
    const fill = node('i');
    fill.style.width = `${100 * Math.max(0, Math.min(1, value))}%`;
    return [node('span', { class: strong ? 'strong' : null }, name), node('span', { class: 'rail' }, fill), node('span', { class: strong ? 'strong' : null }, value.toFixed(2)), words ? node('small', { class: 'words' }, words) : null];
  }));
}

function judgeView(judge) {
  const pairs = judge.score === null || judge.score === undefined ? [] : [['belief that it is right', judge.score, true]];
  // A reason of the form "clarity: 0.53 (why)" belongs to its principle and stands with its bar; the others are quoted below.
  const quotes = new Set(judge.reasons || []);
  for (const [name, value] of Object.entries(judge.principles || {})) {
    if (typeof value !== 'number') continue; // a belief that was no number is logged as null
    const own = [...quotes].find((reason) => reason.startsWith(`${name}: `));
    quotes.delete(own);
    const words = own ? own.slice(name.length + 2).replace(/^[\d.]+\s*/, '').replace(/^\((.*)\)$/s, '$1') : '';
    pairs.push([visible(name.replaceAll('_', ' ')), value, false, visible(words)]);
  }
  const parts = pairs.length ? [meterRows(pairs)] : [];
  if (judge.error) parts.push(node('p', { class: 'note warn' }, `${judge.refused ? 'Refused' : 'No verdict'}: ${visible(judge.error)}`));
  for (const reason of quotes) parts.push(node('blockquote', { class: 'quote' }, visible(reason)));
  const who = [judge.judge, judge.cached ? 'from the cache' : ''].filter(Boolean).join(', ');
  return section(`The judge${who ? ` (${visible(who)})` : ''}`, ...parts);
}

function qualityView(detail) {
  const pairs = [], parts = [];
  if (detail.q) pairs.push(['static quality', detail.q.score, true]);
  if (detail.e !== undefined) pairs.push(['efficiency', detail.e, true]);
  if (detail.q && detail.q.complexity > 1) parts.push(node('p', { class: 'sub' }, `cyclomatic complexity ${detail.q.complexity}`));
  const findings = (detail.q && detail.q.findings) || [];
  if (findings.length) parts.push(node('ul', { class: 'findings' }, findings.map((finding) => node('li', {}, node('code', {}, visible(finding))))));
  else if (detail.q) parts.push(node('p', { class: 'sub' }, 'The linter found nothing.'));
  return section('Style and speed', meterRows(pairs), ...parts);
}
