"use strict";
// Copies the text of the element that a button names.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const value = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(value.textContent.trim());
    button.textContent = button.dataset.copied;
  } catch {
    // Without HTTPS there is no clipboard: select the text for the keyboard.
    getSelection().selectAllChildren(value);
  }
});
// A second click would show that the form was submitted before, instead of the values.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.querySelector("input[name=first_id]")) return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "1";
});
