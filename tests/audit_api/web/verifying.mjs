// Runs the page's verify.js under node: `node verifying.mjs <verify.mjs>`, cases as JSON on stdin, answers as JSON on stdout.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { canonical, consistent, fromBase64, included, openKey, pinOf, verifyTrail } = await import(pathToFileURL(process.argv[2]));
const bytes = (list) => list.map(fromBase64);

const runs = {
  canonical: ({ text }) => canonical(JSON.parse(text)),
  included: ({ leaf, index, size, proof, root }) => included(fromBase64(leaf), index, size, bytes(proof), fromBase64(root)),
  consistent: ({ first, second, roots, proof }) => consistent(first, second, ...bytes(roots), bytes(proof)),
  pin: ({ text }) => pinOf(text),
  trail: async ({ trail, pages, key }) => {
    const report = await verifyTrail(trail, pages.map((page) => JSON.parse(page)), await openKey(key));
    return { entries: report.entries, events: [...report.events.keys()], signed: report.signed };
  },
};

const answers = [];
for (const { run, ...values } of JSON.parse(readFileSync(0, "utf-8"))) {
  try {
    answers.push({ value: await runs[run](values) });
  } catch (error) {
    answers.push({ problem: error.code ?? `${error.name}: ${error.message}` });
  }
}
process.stdout.write(JSON.stringify(answers));
