// What the scripts of all peers have in common: what the bench asks for, and when.
//
// node SCRIPT WORKERS JOBS one|batched, with the database's URL in BMDB_PEER_URL. Says `ready` once JOBS jobs wait, works from the line `work` until
// its input ends, and then tells the latencies since the line `measure`, in microseconds. How many jobs were done, the bench asks the database.
import { createInterface } from "node:readline";

export const url = process.env.BMDB_PEER_URL;
export const [workers, jobs] = process.argv.slice(2, 4).map(Number);
export const isBatched = process.argv[4] === "batched";

/** From asking for a job to having it; and to the answer that it is done. */
const latencies = { claim: [], done: [] };

export function took(what, began) {
    latencies[what].push(Math.round((performance.now() - began) * 1e3));
}

/** Calls back with the sizes of parts of at most 10,000 jobs. */
export async function inParts(push) {
    for (let left = jobs; left > 0; left -= 10_000) {
        await push(Math.min(left, 10_000));
    }
}

export async function run(prepare, work) {
    await prepare();
    const orders = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
    console.log("ready");
    await orders.next();
    work().catch((error) => {
        console.error(error);
        process.exit(1);
    });
    await orders.next();
    latencies.claim = [];
    latencies.done = [];
    await orders.next();
    for (const [what, all] of Object.entries(latencies)) {
        process.stdout.write(`${what} ${all.join(" ")}\n`);
    }
    // What it holds is of no interest any more.
    process.stdout.end(() => process.exit(0));
}
