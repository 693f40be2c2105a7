{{/* Security contexts: PodSecurity `restricted`, except for a confidential VM's device without a plugin. */}}

{{- define "confonnx.podSecurity" -}}
{{- if include "confonnx.privileged" . }}
# The devices of a confidential VM belong to the node's root (values: cvm.deviceAccess).
runAsUser: 0
runAsGroup: 0
{{- else }}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
{{- end }}
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
{{- with .Values.supplementalGroups }}
supplementalGroups: {{ toJson . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "confonnx.containerSecurity" -}}
{{- if include "confonnx.privileged" . }}
privileged: true
{{- else }}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
{{- end }}
readOnlyRootFilesystem: true
{{- end }}

{{/* What the TEE adds to the limits. */}}
{{- define "confonnx.devices" -}}
{{- if eq .Values.tee "sgx" }}
{{- if .Values.sgx.legacyResourceName }}
kubernetes.azure.com/sgx_epc_mem_in_MiB: {{ int .Values.sgx.epcMemInMiB }}
{{- else }}
sgx.intel.com/epc: {{ printf "%dMi" (int .Values.sgx.epcMemInMiB) }}
{{- end }}
{{- if .Values.sgx.explicitDevices }}
sgx.intel.com/enclave: 1
sgx.intel.com/provision: 1
{{- end }}
{{- else if and (eq .Values.tee "cvm") (eq .Values.cvm.deviceAccess "device-plugin") }}
{{ .Values.cvm.deviceResource }}: 1
{{- end }}
{{- end }}
