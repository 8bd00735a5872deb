// Steady traffic from a foreign client (@grpc/grpc-js): selects, and reports what was shown. A JSON line of counts each second.
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const [engineTarget, trackerTarget, placement, perSecond] = process.argv.slice(2);
const definition = await protoLoader.load(
  ['banditmesh/crs_engine/v1/crs_engine.proto', 'banditmesh/tracker/v1/tracker.proto'],
  { includeDirs: [process.env.PROTOS], keepCase: true, enums: String, oneofs: true });
const { banditmesh } = grpc.loadPackageDefinition(definition);
const retryPolicy = {
  maxAttempts: 5, initialBackoff: '0.05s', maxBackoff: '1s', backoffMultiplier: 2, retryableStatusCodes: ['UNAVAILABLE', 'CANCELLED'],
};
const options = {
  'grpc.service_config': JSON.stringify({
    loadBalancingConfig: [{ round_robin: {} }], methodConfig: [{ name: [{}], retryPolicy }],
  }),
  'grpc.dns_min_time_between_resolutions_ms': 5000,
};
const plain = grpc.credentials.createInsecure();
const engine = new banditmesh.crs_engine.v1.CrsEngineService(engineTarget, plain, options);
const tracker = new banditmesh.tracker.v1.EventTrackerService(trackerTarget, plain, options);
const counts = { select: 0, 'select failed': 0, track: 0, 'track failed': 0, empty: 0 };
const failures = {};

function call(client, method, request, seconds) {
  return new Promise((resolve, reject) => {
    client[method](request, { deadline: Date.now() + 1000 * seconds }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

function failed(kind, error) {
  counts[`${kind} failed`] += 1;
  const what = `${kind}: ${error.code} ${String(error.details ?? error).replace(/[\d.]+m?s/g, 'N').slice(0, 60)}`;
  failures[what] = (failures[what] ?? 0) + 1;
}

// As docs/contracts.md asks of every client: what was not taken is sent again, until it is too late.
async function track(request, seconds) {
  const deadline = Date.now() + 1000 * seconds;
  for (let wait = 200; ; wait = Math.min(2 * wait, 3000)) {
    try {
      return await call(tracker, 'TrackEvents', request, Math.min(10, (deadline - Date.now()) / 1000));
    } catch (error) {
      if (Date.now() + wait > deadline || ![grpc.status.UNAVAILABLE, grpc.status.RESOURCE_EXHAUSTED,
        grpc.status.CANCELLED, grpc.status.DEADLINE_EXCEEDED, grpc.status.ABORTED].includes(error.code)) throw error;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

async function visit(number) {
  counts.select += 1;
  let selection;
  try {
    ({ selection } = await call(engine, 'SelectContent', { placement, user_id: `load-${number % 300}` }, 5));
  } catch (error) {
    return failed('select', error);
  }
  if (selection.outcome !== 'content') { counts.empty += 1; return undefined; }
  counts.track += 1;
  try {
    const { results } = await track({ events: [{ impression_token: selection.content.impression_token, shown: {} }] }, 60);
    if (results[0].status !== 'EVENT_STATUS_ACCEPTED') failed('track', { code: results[0].status, details: results[0].message });
  } catch (error) {
    failed('track', error);
  }
  return undefined;
}

let number = 0;
setInterval(() => { visit(number); number += 1; }, 1000 / Number(perSecond));
setInterval(() => console.log(JSON.stringify({ ...counts, failures })), 1000);
