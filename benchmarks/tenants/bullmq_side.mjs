// The side of BullMQ (its free edition: no groups). A queue for each tenant, since one queue has no fair turns.
import { appendFileSync } from "node:fs";
import { Queue, Worker } from "bullmq";
import IORedis from "ioredis";

const connection = new IORedis(process.env.STORY_URL, { maxRetriesPerRequest: null });
const queue = (name) => new Queue(name, { connection });
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function work() {
  const run = async (job) => {
    appendFileSync(process.env.STORY_STARTS, `${Date.now()} ${job.data.tenant}\n`);
    await sleep(job.data.tenant === "same" ? 8000 : 50);
  };
  // One slot in all would need one worker over all queues, which there is not: one for each queue.
  for (const name of ["big", "small", "free", "jobs", "cron"]) new Worker(name, run, { connection });
  new Worker("limited", run, { connection, limiter: { max: 10, duration: 1000 } });
}

const many = (name, count, tenant, options) =>
  queue(name).addBulk(Array.from({ length: count }, () => ({ name: tenant, data: { tenant }, opts: options })));

const ADD = {
  big: () => many("big", 200, "big"),
  small: () => many("small", 10, "small"),
  limited: () => many("limited", 30, "limited"),
  free: () => many("free", 30, "free"),
  normal: () => many("jobs", 100, "normal", { priority: 10 }),
  urgent: () => many("jobs", 1, "urgent", { priority: 1 }),
  same: () => queue("jobs").add("same", { tenant: "same" }, { deduplication: { id: "invoice-7" } }),
  cron: () => queue("cron").upsertJobScheduler("tick", { pattern: "*/2 * * * * *" }, { data: { tenant: "cron" } }),
};

if (process.argv[2] === "work") await work();
else {
  await ADD[process.argv[3]]();
  process.exit(0);
}
