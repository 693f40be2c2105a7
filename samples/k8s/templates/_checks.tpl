{{/* Values that contradict each other. values.schema.json has said what one value alone may be. */}}

{{- define "confonnx.checks" -}}
{{- include "confonnx.checkImages" . }}
{{- include "confonnx.checkAuth" . }}
{{- include "confonnx.checkTee" . }}
{{- include "confonnx.checkModel" . }}
{{- include "confonnx.checkWay" . }}
{{- include "confonnx.checkReplicas" . }}
{{- include "confonnx.checkNodes" . }}
{{- if and (eq (toString .Values.settings.fetch_endorsements) "true") .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) }}
{{- fail "settings.fetch_endorsements is on, but the NetworkPolicy lets the server out nowhere: allow DNS and port 443 in networkPolicy.egress, or let clients fetch (--endorsements fetch)." }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.enabled) }}
{{- fail "metrics.serviceMonitor.enabled is true and metrics.enabled is false: there would be nothing to scrape. Turn metrics on, or the ServiceMonitor off." }}
{{- end }}
{{- end }}

{{- define "confonnx.checkImages" -}}
{{- if not .Values.image }}
{{- fail "image is not set: give the image that docker/server/build_image.sh made and you pushed, by digest, such as --set image=registry.example/model-server@sha256:… (docker inspect --format '{{index .RepoDigests 0}}' IMAGE shows it)." }}
{{- end }}
{{- include "confonnx.checkDigest" (list "image" .Values.image .Values.dangerousImageByTag) }}
{{- if .Values.model.initContainer.image }}
{{- include "confonnx.checkDigest" (list "model.initContainer.image" .Values.model.initContainer.image .Values.dangerousImageByTag) }}
{{- end }}
{{- end }}

{{- define "confonnx.checkDigest" -}}
{{- if not (or (index . 2) (regexMatch "@sha256:[0-9a-f]{64}$" (index . 1))) }}
{{- fail (printf "%s is %q, which names no digest: a tag can be moved to other code. Append @sha256:… (64 hex digits), or, for a first try, set dangerousImageByTag=true." (index . 0) (index . 1)) }}
{{- end }}
{{- end }}

{{- define "confonnx.checkAuth" -}}
{{- $where := .Values.auth.where }}
{{- if not $where }}
{{- fail "auth.where is not set: choose server (checked inside the TEE; with tee cvm or none), image (the same, built into the image, as SGX needs it), ingress (checked by the gateway, whose owner reads the passwords) or none (everybody may ask)." }}
{{- else if and (eq $where "server") (eq .Values.tee "sgx") }}
{{- fail "auth.where is server and tee is sgx: an enclave reads no credentials from its pod. Build them in (docker/server/build_image.sh with CONFIG_DIR) and set auth.where=image, or check them in front with auth.where=ingress." }}
{{- else if eq $where "ingress" }}
{{- if not (or (and .Values.gateway.enabled .Values.gateway.envoyGateway) (and .Values.ingress.enabled (eq .Values.ingress.kind "nginx"))) }}
{{- fail "auth.where is ingress, but only nginx (ingress.enabled, ingress.kind=nginx) and Envoy Gateway (gateway.enabled, gateway.envoyGateway=true) check passwords for this chart. Choose one of them, or auth.where=server, or image." }}
{{- end }}
{{- end }}
{{- end }}

{{- define "confonnx.checkTee" -}}
{{- if eq .Values.tee "sgx" }}
{{- if .Values.settings }}
{{- fail (printf "settings holds %s and tee is sgx: an enclave takes its options from its signed manifest, and would not see these. Give them to the build (docker/server/build_image.sh with CONFIG_DIR) and leave settings empty." (keys .Values.settings | sortAlpha | join ", ")) }}
{{- end }}
{{- else if eq .Values.tee "cvm" }}
{{- if eq .Values.cvm.deviceAccess "device-plugin" }}
{{- if eq .Values.cvm.tee "tdx" }}
{{- fail "cvm.tee is tdx and cvm.deviceAccess is device-plugin: TDX quotes come from configfs, which no device plugin passes in. Set cvm.deviceAccess=privileged." }}
{{- else if not .Values.cvm.deviceResource }}
{{- fail "cvm.deviceAccess is device-plugin, but cvm.deviceResource is empty: name the resource that your device plugin offers, such as smarter-devices/tpmrm0 (kubectl describe node shows it)." }}
{{- end }}
{{- else if .Values.cvm.deviceResource }}
{{- fail (printf "cvm.deviceResource is %q and cvm.deviceAccess is privileged: a privileged pod needs no plugin. Set cvm.deviceAccess=device-plugin, or leave the resource out." .Values.cvm.deviceResource) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "confonnx.checkModel" -}}
{{- with .Values.model }}
{{- if eq .source "image" }}
{{- if or .path .repository .claim .initContainer.image }}
{{- fail "model.source is image, but model.path, repository, claim or initContainer.image is set: they belong to model.source volume or initContainer. Choose one of these, or leave them out." }}
{{- end }}
{{- if and .name (eq $.Values.tee "sgx") }}
{{- fail "model.name is set and tee is sgx: the enclave has its model's name from the build. Leave it out." }}
{{- end }}
{{- else }}
{{- if eq $.Values.tee "sgx" }}
{{- fail (printf "model.source is %s and tee is sgx: an enclave opens only the model that was measured into it. Build it in (docker/server/build_image.sh with MODEL_PATH) and set model.source=image." .source) }}
{{- end }}
{{- if and .path .repository }}
{{- fail "model.path and model.repository exclude each other: give the one model, or the directory of many." }}
{{- else if not (or .path .repository) }}
{{- fail (printf "model.source is %s, but it is not said where the model lies in it: set model.path (one model) or model.repository (many; \".\" for all)." .source) }}
{{- end }}
{{- if and .name .repository }}
{{- fail "model.name names the model of model.path; those of model.repository have the names of their directories. Leave one of them out." }}
{{- end }}
{{- if and (eq .source "volume") (not .claim) }}
{{- fail "model.source is volume, but model.claim is empty: name the PersistentVolumeClaim that holds the model." }}
{{- end }}
{{- if and (eq .source "initContainer") (not .initContainer.image) }}
{{- fail "model.source is initContainer, but model.initContainer.image is empty: give an image, by digest, that writes the model to /models." }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "confonnx.checkWay" -}}
{{- if and .Values.gateway.enabled .Values.ingress.enabled }}
{{- fail "gateway.enabled and ingress.enabled are both true: two ways in, of which one would lack what the other has. Set one of them to false." }}
{{- end }}
{{- if and .Values.letsEncrypt.enabled .Values.tlsSecret }}
{{- fail "letsEncrypt.enabled is true and tlsSecret is set: the certificate comes from one of them. Leave the other out." }}
{{- end }}
{{- if include "confonnx.tlsSecret" . }}
{{- if not .Values.host }}
{{- fail "TLS is on (letsEncrypt.enabled or tlsSecret), but host is empty: a certificate is for a DNS name. Set host." }}
{{- end }}
{{- if not (or .Values.gateway.enabled .Values.ingress.enabled) }}
{{- fail "TLS is on (letsEncrypt.enabled or tlsSecret), but neither gateway.enabled nor ingress.enabled is: nothing would use the certificate. Turn one on, or TLS off." }}
{{- end }}
{{- if and .Values.gateway.enabled .Values.gateway.parentRefs }}
{{- fail "TLS is on (letsEncrypt.enabled or tlsSecret) and gateway.parentRefs is set: a Gateway that exists has its certificates in its own listeners. Turn TLS off here, or leave parentRefs out so that the chart makes the Gateway." }}
{{- end }}
{{- end }}
{{- if .Values.gateway.enabled }}
{{- if not (or .Values.gateway.parentRefs .Values.gateway.className) }}
{{- fail "gateway.enabled is true, but gateway.className is empty and gateway.parentRefs too: name the class of the Gateway to make (kubectl get gatewayclass), or the Gateways to attach to." }}
{{- end }}
{{- end }}
{{- if .Values.ingress.enabled }}
{{- if not .Values.ingress.className }}
{{- fail "ingress.enabled is true, but ingress.className is empty: name the class (kubectl get ingressclass), such as nginx or azure-application-gateway." }}
{{- end }}
{{- if and (eq .Values.ingress.kind "other") (include "confonnx.urlPrefix" .) (eq .Values.tee "sgx") }}
{{- fail "ingress.kind is other, whose way to take urlPrefix off this chart does not know, and an SGX enclave has its prefix from the build. Give the model a host of its own and set urlPrefix=\"\", or use nginx, application-gateway or the Gateway." }}
{{- end }}
{{- end }}
{{- end }}

{{- define "confonnx.checkReplicas" -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- fail (printf "autoscaling.minReplicas is %d, more than autoscaling.maxReplicas, %d." (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- end }}
{{- if and (include "confonnx.manyReplicas" .) (not .Values.clientsKeptByGateway) }}
{{- if or (and .Values.gateway.enabled (not .Values.gateway.envoyGateway)) (and .Values.ingress.enabled (ne .Values.ingress.kind "nginx")) }}
{{- fail "more than one replica (replicas or autoscaling), but what is in front would spread a client's requests over them, and each replica has keys of its own. Set replicas=1; or use nginx or Envoy Gateway (gateway.envoyGateway=true), for which the chart keeps clients by their address; or, if yours does so already, clientsKeptByGateway=true." }}
{{- end }}
{{- end }}
{{- end }}
