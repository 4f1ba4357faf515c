// The contrast of each visible text with what is behind it, by WCAG 2.1: returns the texts whose contrast is too low.
const channel = (value) => value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);

function parse(text) {
  const numbers = text.match(/[\d.]+/g).map(Number);
  return { colour: numbers.slice(0, 3), alpha: numbers.length > 3 ? numbers[3] : 1 };
}

function behind(element) {
  const layers = [];
  for (let at = element; at; at = at.parentElement) {
    const layer = parse(getComputedStyle(at).backgroundColor);
    if (layer.alpha) layers.push(layer);
    if (layer.alpha === 1) break;
  }
  const over = (below, layer) => below.map((value, i) => layer.colour[i] * layer.alpha + value * (1 - layer.alpha));
  return layers.reverse().reduce(over, [255, 255, 255]);
}

const found = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const element = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
  if (!text || !element.checkVisibility() || element.closest(".unseen, noscript, script")) continue;
  const style = getComputedStyle(element), size = parseFloat(style.fontSize);
  const large = size >= 24 || (style.fontWeight >= 700 && size >= 18.66);
  const [light, dark] = [luminance(parse(style.color).colour), luminance(behind(element))].sort((a, b) => b - a);
  const ratio = (light + 0.05) / (dark + 0.05);
  if (ratio < (large ? 3 : 4.5)) found.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}, ${style.color} on ${behind(element)}`);
}
return found;
