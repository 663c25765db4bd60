import { startBrowser } from "./browser.mjs";
const b = await startBrowser();
for (const [name,o] of [["light",{viewport:{width:1360,height:860},colorScheme:"light"}],["dark",{viewport:{width:1360,height:860},colorScheme:"dark"}],["phone",{viewport:{width:320,height:700},colorScheme:"light"}]]) {
  const p = await b.newPage(o);
  p.on("console",m=>console.log(name,m.type(),m.text())); p.on("pageerror",e=>console.log(name,"ERR",e.message));
  await p.goto("http://127.0.0.1:8077/ui");
  await p.waitForSelector("#tree-body tr");
  await p.fill("#prompt","What happens to my answer when the scheduler dies?"); await p.press("#prompt","Enter");
  await p.waitForTimeout(1500);
  await fetch("http://127.0.0.1:8077/actors/engine-0/scheduler-0/kill",{method:"POST"});
  await p.waitForTimeout(name==="light"?15000:2200);
  await fetch("http://127.0.0.1:8077/actors/engine-0/kv-cache-0/kill",{method:"POST"});
  await p.waitForTimeout(700);
  console.log(name, await p.evaluate(()=>[document.documentElement.scrollWidth,innerWidth]));
  await p.screenshot({path:`/work/tmp/shot-${name}.png`,fullPage:name==="phone"});
  if(name==="dark"){ await p.click('tr[data-path="cllm/engine-0/scheduler-0"]'); await p.waitForTimeout(300); await p.screenshot({path:"/work/tmp/shot-details.png"}); }
}
await b.close();
