// Inside the component of the list.
element.addEventListener('click', (event) => {
  const row = event.target.closest('.hp-row');
  if (row) trigger('choose', { key: Number(row.dataset.key) });
});
watch('value', () => {
  const row = element.querySelector('.hp-row[aria-current]');
  if (row) row.scrollIntoView({ block: 'nearest', inline: 'nearest' });
});
