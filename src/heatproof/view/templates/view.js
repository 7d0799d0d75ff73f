// Inside the component of the stage: `element` is its root, `trigger` sends an event to the server.
const root = document.documentElement;
const strokes = { key: null, all: [], radius: 0.07 };
const stage = () => element.querySelector('.hp-stage');

function fitted() {
  const canvas = element.querySelector('.hp-image canvas');
  const image = element.querySelector('.hp-image img');
  if (!canvas || !image) return null;
  const box = image.getBoundingClientRect();
  if (canvas.width !== Math.round(box.width) || canvas.height !== Math.round(box.height)) {
    canvas.width = Math.round(box.width); canvas.height = Math.round(box.height);
  }
  return canvas;
}
function draw() {
  const canvas = fitted();
  if (!canvas) return;
  const pen = canvas.getContext('2d');
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.strokeStyle = pen.fillStyle = '#ff2fd0'; pen.lineCap = pen.lineJoin = 'round';
  pen.lineWidth = 2 * strokes.radius * canvas.width;
  for (const stroke of strokes.all) {
    pen.beginPath();
    stroke.forEach(([x, y], i) => i ? pen.lineTo(x * canvas.width, y * canvas.height)
                                    : pen.moveTo(x * canvas.width, y * canvas.height));
    if (stroke.length === 1) pen.lineTo(stroke[0][0] * canvas.width + 0.01, stroke[0][1] * canvas.height);
    pen.stroke();
  }
}
function brushing() { return root.classList.contains('hp-erasing'); }
function restored() {  // after the server has drawn the stage anew
  const part = stage();
  if (!part) return;
  if (strokes.key !== part.dataset.key) { strokes.key = part.dataset.key; strokes.all = []; }
  const button = element.querySelector('.hp-brush'), size = element.querySelector('.hp-radius');
  if (button) button.setAttribute('aria-pressed', String(brushing()));
  if (size) size.value = String(Math.round(100 * strokes.radius));
  const image = element.querySelector('.hp-image img');
  if (image && !image.complete) image.addEventListener('load', draw, { once: true }); else draw();
}
if (!root.dataset.hpBrush) {  // a mouse can draw at once; a finger scrolls until the brush is chosen
  root.dataset.hpBrush = '1';
  if (window.matchMedia('(pointer: fine)').matches) root.classList.add('hp-erasing');
}
let current = null;
function point(event, canvas) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}
element.addEventListener('pointerdown', (event) => {
  const canvas = event.target.closest('.hp-image canvas');
  if (!canvas || !brushing() || stage().dataset.brush !== '1' || event.button) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  fitted();
  current = [point(event, canvas)];
  strokes.all.push(current);
  draw();
});
element.addEventListener('pointermove', (event) => {
  if (!current) return;
  const canvas = element.querySelector('.hp-image canvas');
  if (!canvas) { current = null; return; }
  current.push(point(event, canvas));
  draw();
});
function finished() {
  if (!current) return;
  current = null;
  trigger('erase', { key: Number(strokes.key), strokes: strokes.all, radius: strokes.radius });
}
element.addEventListener('pointerup', finished);
element.addEventListener('pointercancel', finished);
element.addEventListener('click', (event) => {
  if (event.target.closest('.hp-brush')) { root.classList.toggle('hp-erasing'); restored(); }
  if (event.target.closest('.hp-clear')) { strokes.all = []; draw(); trigger('clear', {}); }
});
element.addEventListener('input', (event) => {
  if (!event.target.closest('.hp-radius')) return;
  strokes.radius = Number(event.target.value) / 100;
  draw();
});
element.addEventListener('change', (event) => {
  if (event.target.closest('.hp-radius') && strokes.all.length) {
    trigger('erase', { key: Number(strokes.key), strokes: strokes.all, radius: strokes.radius });
  }
});
window.addEventListener('resize', draw);
if (window.hpKeys) document.removeEventListener('keydown', window.hpKeys);
window.hpKeys = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest && event.target.closest('input, textarea, select, [role=listbox], [contenteditable]');
  if (typing) return;
  const steps = { ArrowRight: 1, ArrowLeft: -1 }, noise = { ']': 1, '[': -1 };
  if (event.key in steps) { event.preventDefault(); trigger('step', { by: steps[event.key] }); }
  else if (event.key in noise) { event.preventDefault(); trigger('noise', { by: noise[event.key] }); }
  else if (event.key === 'o' || event.key === 'O') { root.classList.toggle('hp-plain'); }
};
document.addEventListener('keydown', window.hpKeys);
watch('value', restored);
restored();
