{{/* Names, labels and facts that several objects share. */}}

{{- define "confonnx.labels" -}}
app: {{ .Values.name }}
app.kubernetes.io/name: confonnx
app.kubernetes.io/instance: {{ .Values.name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Never changes in the life of a Deployment: its selector cannot. */}}
{{- define "confonnx.selector" -}}
app: {{ .Values.name }}
{{- end }}

{{- define "confonnx.manyReplicas" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}true{{ end -}}
{{- end }}

{{/* The Secret with the certificate; empty without TLS. */}}
{{- define "confonnx.tlsSecret" -}}
{{- if .Values.letsEncrypt.enabled }}tls-secret{{ else }}{{ .Values.tlsSecret }}{{ end -}}
{{- end }}

{{/* The prefix without a slash at its end; "" for none. */}}
{{- define "confonnx.urlPrefix" -}}
{{- trimSuffix "/" .Values.urlPrefix -}}
{{- end }}

{{- define "confonnx.privileged" -}}
{{- if and (eq .Values.tee "cvm") (eq .Values.cvm.deviceAccess "privileged") }}true{{ end -}}
{{- end }}

{{/* Addresses that clients may use. */}}
{{- define "confonnx.url" -}}
{{- $scheme := ternary "https" "http" (ne (include "confonnx.tlsSecret" .) "") -}}
{{ $scheme }}://{{ .Values.host | default "ADDRESS" }}{{ include "confonnx.urlPrefix" . }}/
{{- end }}

{{/* A setting as text: numbers of a values file are floats, and would come out as 1.34217728e+08. */}}
{{- define "confonnx.text" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end }}

{{/* AKS taints nodes by the resource that it offered before `sgx.intel.com/epc`. */}}
{{- define "confonnx.tolerations" -}}
{{- $own := list }}
{{- if eq .Values.tee "sgx" }}
{{- $own = list (dict "key" "kubernetes.azure.com/sgx_epc_mem_in_MiB" "operator" "Exists" "effect" "NoSchedule") }}
{{- end }}
{{- toYaml (concat $own .Values.tolerations) }}
{{- end }}
