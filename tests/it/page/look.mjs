// Drives a browser for a test: one command a line on standard input, one JSON line for each answer.
//   open URL      crowd URL COUNT      look       axe       shot SCHEME WIDTH PATH       end
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const find = createRequire(process.env.PACKAGES + '/');
const { chromium } = find('playwright-core');
const axe = readFileSync(find.resolve('axe-core/axe.min.js'), 'utf8');

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox', '--disable-gpu'] });
// The tool that judges contrast is put into the page, which its own policy would not allow.
const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, bypassCSP: false });
const page = await context.newPage();
const errors = [], asked = [];
page.on('pageerror', (error) => errors.push(String(error)));
page.on('console', (message) => {
  // A daemon that is away is told on the page.
  if (message.type() === 'error' && !message.text().includes('net::ERR_')) errors.push(message.text());
});
page.on('request', (request) => asked.push(request.url()));

// At one moment: what is asked piece by piece may have changed between two of them.
const look = () => page.evaluate(() => {
  const shown = (node) => node?.checkVisibility() ? node.innerText : null;
  const pipelines = [...document.querySelectorAll('details.pipeline')].map((node) => ({
    name: node.dataset.name,
    open: node.open,
    text: node.innerText,
    state: shown(node.querySelector('.state .value')),
    error: shown(node.querySelector('.error')),
  }));
  return { verdict: shown(document.querySelector('#verdict')), title: document.title, away: Boolean(shown(document.querySelector('#away'))), pipelines };
});

async function judge() {
  const found = [];
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    await page.evaluate(axe);
    const { violations, passes } = await page.evaluate(() => axe.run());
    found.push({ scheme: colorScheme, passes: passes.length, violations: violations.map((it) => [it.id, it.nodes[0].html, it.nodes[0].failureSummary]) });
  }
  return found;
}

const commands = {
  open: async (url) => { await page.goto(url); return true; },
  // Others look as well, each in a window of their own.
  crowd: async (url, count) => {
    for (let one = 0; one < Number(count); one++) {
      const window = await browser.newContext();
      const page = await window.newPage();
      await page.goto(url);
      await page.locator('details.pipeline').first().waitFor();
    }
    return true;
  },
  look,
  axe: judge,
  shot: async (scheme, width, path) => {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width: Number(width), height: 800 });
    await page.screenshot({ path, fullPage: true });
    return page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
  },
  end: async () => ({ errors, asked: [...new Set(asked)] }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...rest] = line.split(' ');
  console.log(JSON.stringify(await commands[name](...rest)));
  if (name === 'end') break;
}
await browser.close();
process.exit(0);
