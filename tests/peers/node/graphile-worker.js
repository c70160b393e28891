// graphile-worker, as its documentation runs it: one process with WORKERS concurrent jobs. Batched: its local queue and batched completion.
import { EventEmitter } from "node:events";
import { Logger, makeWorkerUtils, run as runWorker } from "graphile-worker";
import { inParts, isBatched, run, took, url, workers } from "./peer.js";

const quiet = new Logger(() => (level, message) => {
    if (level === "error") console.error(message);
});

async function prepare() {
    const utils = await makeWorkerUtils({ connectionString: url, logger: quiet });
    await utils.migrate();
    await inParts((count) => utils.addJobs(Array.from({ length: count }, () => ({ identifier: "noop", payload: {} }))));
    await utils.release();
}

async function work() {
    const events = new EventEmitter();
    const asked = new Map();
    // Batched, a job is taken from memory. And when one is done cannot be told: its event comes before the answer of the statement.
    if (!isBatched) {
        events.on("worker:getJob:start", ({ worker }) => asked.set(worker, performance.now()));
        events.on("job:start", ({ worker }) => took("claim", asked.get(worker)));
    }
    const runner = await runWorker({
        preset: {
            worker: {
                connectionString: url,
                concurrentJobs: workers,
                // One more listens.
                maxPoolSize: workers + 1,
                logger: quiet,
                ...(isBatched && { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }),
            },
        },
        taskList: { noop: () => {} },
        events,
        noHandleSignals: true,
    });
    await runner.promise;
}

await run(prepare, work);
