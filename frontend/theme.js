// Runs before the first paint, so that a chosen theme does not flash in after the page.
// The key and its values are those of `browser::Theme`.
try {
  const theme = localStorage.getItem("ringmaster.theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // Storage is forbidden: the system's theme it is.
}
