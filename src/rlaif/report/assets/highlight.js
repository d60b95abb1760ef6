// Python code as coloured text. Only text nodes and spans are made: what a model wrote is never parsed as HTML.
const PY_KEYWORDS = new Set('and as assert async await break class continue def del elif else except finally for from global if import in is lambda nonlocal not or pass raise return try while with yield match case None True False'.split(' '));
const PY_BUILTINS = new Set('abs all any bool bytes callable chr dict divmod enumerate filter float frozenset getattr hash input int isinstance iter len list map max min next open ord pow print range repr reversed round self set sorted str sum super tuple type zip'.split(' '));
// Order matters: comments and strings first, so that a keyword inside one stays plain. An unclosed string ends with its line (or the text, if triple).
const PY_TOKEN = /(#[^\n]*)|([rRbBuUfF]{0,2}(?:"""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)|"(?:\\.|[^"\\\n])*(?:"|(?=\n)|$)|'(?:\\.|[^'\\\n])*(?:'|(?=\n)|$)))|(\b\d[\w.]*)|([A-Za-z_]\w*)/g;

function pythonTokens(code) {
  const tokens = [];
  let end = 0, afterDef = false;
  for (const match of code.matchAll(PY_TOKEN)) {
    if (match.index > end) tokens.push(['', code.slice(end, match.index)]);
    const [text, comment, string, number, word] = match;
    let kind = comment ? 'c' : string ? 's' : number ? 'n' : '';
    if (word) kind = PY_KEYWORDS.has(word) ? 'k' : afterDef ? 'd' : PY_BUILTINS.has(word) ? 'b' : '';
    afterDef = word === 'def' || word === 'class';
    tokens.push([kind, text]);
    end = match.index + text.length;
  }
  if (end < code.length) tokens.push(['', code.slice(end)]);
  return tokens;
}

function codeBlock(code) {
  const pre = node('pre', { class: 'code', tabindex: '0', 'aria-label': 'Code' });
  let number = 0, line;
  const open = () => { line = node('span', { class: 'line', 'data-n': String(++number) }); pre.append(line); };
  open();
  for (const [kind, text] of pythonTokens(visible(code.replace(/\r\n?/g, '\n').replace(/\s+$/, '')))) {
    text.split('\n').forEach((part, index) => {
      if (index) open();
      if (part) line.append(kind ? node('span', { class: kind }, part) : part);
    });
  }
  return pre;
}

// Characters that hide or reorder text (bidirectional marks, zero width, controls) are shown by their code point.
function visible(text) {
  return String(text).replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\udb40][\udc00-\udc7f]/g,
    (char) => `\\u{${char.codePointAt(0).toString(16)}}`);
}

// The one way elements are made: attributes and text, no HTML strings anywhere in these files.
function node(tag, attributes = {}, ...children) {
  const element = SVG_TAGS.has(tag) ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? '' : value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}
const SVG_TAGS = new Set(['svg', 'path', 'line', 'circle', 'rect', 'text', 'g']);
