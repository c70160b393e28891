// pg-boss: WORKERS loops of fetch() and complete(), one job at a time or 500. (Its work() waits at least half a second after each fetch.)
import PgBoss from "pg-boss";
import { inParts, isBatched, run, took, url, workers } from "./peer.js";

const queue = "bench";
const boss = new PgBoss({ connectionString: url, max: workers });
boss.on("error", console.error);

async function prepare() {
    await boss.start();
    await boss.createQueue(queue);
    await inParts((count) => boss.insert(Array.from({ length: count }, () => ({ name: queue }))));
}

async function worker() {
    const options = { batchSize: isBatched ? 500 : 1 };
    for (;;) {
        const began = performance.now();
        const jobs = await boss.fetch(queue, options);
        if (jobs.length === 0) {
            await new Promise((wake) => setTimeout(wake, 1));
            continue;
        }
        took("claim", began);
        const ids = jobs.map(({ id }) => id);
        await boss.complete(queue, ids);
        took("done", began);
    }
}

await run(prepare, () => Promise.all(Array.from({ length: workers }, worker)));
