// Checks Kubernetes objects (a JSON array on standard input) against the schemas of their custom resources, and
// writes a list of errors for each. A field that no schema knows is an error too: the API server would drop it.

import * as acme from "@kubernetes-models/cert-manager/cert-manager.io/v1";
import * as gateway from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1";
import * as monitoring from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

const GROUPS = {
  "cert-manager.io/v1": acme,
  "gateway.networking.k8s.io/v1": gateway,
  "monitoring.coreos.com/v1": monitoring,
};

// The schemas allow what they do not name, so this watches which fields the validator looks at: one that it
// never read is one that it does not know.
function watched(value, path, unread) {
  if (value === null || typeof value !== "object") return value;
  const inner = Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, watched(item, `${path}/${key}`, unread)]),
  );
  const target = Array.isArray(value) ? Object.values(inner) : inner;
  if (!Array.isArray(value)) Object.keys(value).forEach((key) => unread.add(`${path}/${key}`));
  return new Proxy(target, {
    get(object, key) {
      unread.delete(`${path}/${String(key)}`);
      return object[key];
    },
    ownKeys(object) {
      // a map of any keys, such as labels
      Object.keys(object).forEach((key) => unread.delete(`${path}/${key}`));
      return Reflect.ownKeys(object);
    },
  });
}

function errorsOf(object) {
  const type = GROUPS[object.apiVersion]?.[object.kind];
  if (type === undefined) return [`no schema for ${object.apiVersion} ${object.kind}`];
  const unread = new Set();
  const spec = watched(object.spec, "/spec", unread);
  try {
    // not to the constructor, which would copy the values and so read them all
    Object.assign(new type(), object, { spec }).validate();
  } catch (error) {
    return [String(error.message)];
  }
  return [...unread].map((path) => `${path}: unknown field`);
}

let input = "";
for await (const chunk of process.stdin) input += chunk;
process.stdout.write(JSON.stringify(JSON.parse(input).map(errorsOf)));
