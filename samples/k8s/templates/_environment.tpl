{{/* The server's options as CONFONNX_ variables, one "NAME: value" a line. None for an enclave, which has its
     options from its manifest and sees no variable of the pod. */}}

{{- define "confonnx.environment" -}}
{{- if ne .Values.tee "sgx" }}
{{- $variables := dict "LOG_FORMAT" "json" "HTTP_PORT" "8888" "METRICS_PORT" "8082" }}
{{- range $name, $value := .Values.settings }}
{{- $_ := set $variables (upper $name) (include "confonnx.text" $value) }}
{{- end }}
{{- $_ := set $variables "METRICS" (toString .Values.metrics.enabled) }}
{{- $_ := set $variables "DRAIN_TIMEOUT" (printf "%ds" (int .Values.drainSeconds)) }}
{{- if include "confonnx.urlPrefix" . }}{{ $_ := set $variables "URL_PREFIX" (include "confonnx.urlPrefix" .) }}{{ end }}
{{- if eq .Values.tee "cvm" }}
{{- $_ := set $variables "TEE" .Values.cvm.tee }}
{{- $_ := set $variables "REQUIRE_TEE" "true" }}
{{- else }}
{{- $_ := set $variables "TEE" "simulated" }}
{{- end }}
{{- if eq .Values.auth.where "server" }}{{ $_ := set $variables "AUTH_FILE" "/run/confonnx/auth/credentials" }}{{ end }}
{{- with .Values.model }}
{{- if .path }}{{ $_ := set $variables "MODEL_PATH" (clean (printf "/models/%s" .path)) }}{{ end }}
{{- if .repository }}{{ $_ := set $variables "MODEL_REPOSITORY" (clean (printf "/models/%s" .repository)) }}{{ end }}
{{- if .name }}{{ $_ := set $variables "MODEL_NAME" .name }}{{ end }}
{{- end }}
{{- range $name := keys $variables | sortAlpha }}
CONFONNX_{{ $name }}: {{ get $variables $name | quote }}
{{- end }}
{{- end }}
{{- end }}
