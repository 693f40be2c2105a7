{{/* Volumes and where the server sees them. Whatever is written stays in memory. */}}

{{- define "confonnx.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if ne .Values.model.source "image" }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- if eq .Values.auth.where "server" }}
- {name: auth, mountPath: /run/confonnx/auth, readOnly: true}
{{- end }}
{{- if eq .Values.tee "sgx" }}
- {name: aesmd, mountPath: /var/run/aesmd}
{{- if eq .Values.sgx.aesmd "container" }}
- {name: aesmd-state, mountPath: /var/opt/aesmd}
{{- end }}
{{- else if and (include "confonnx.privileged" .) (has .Values.cvm.tee (list "sev-snp" "tdx")) }}
- {name: configfs, mountPath: /sys/kernel/config}
{{- end }}
{{- end }}

{{- define "confonnx.volumes" -}}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 64Mi}
{{- if eq .Values.model.source "volume" }}
- name: models
  persistentVolumeClaim: {claimName: {{ .Values.model.claim | quote }}, readOnly: true}
{{- else if eq .Values.model.source "initContainer" }}
- name: models
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.model.initContainer.sizeLimit | quote }}}
{{- end }}
{{- if eq .Values.auth.where "server" }}
- name: auth
  secret:
    secretName: {{ .Values.auth.secretName }}
    defaultMode: 0440
    items:
      - {key: credentials, path: credentials}
{{- end }}
{{- if eq .Values.tee "sgx" }}
- name: aesmd
{{- if eq .Values.sgx.aesmd "node" }}
  hostPath: {path: /var/run/aesmd, type: Directory}
{{- else }}
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: aesmd-state
  emptyDir: {medium: Memory, sizeLimit: 16Mi}
{{- end }}
{{- else if and (include "confonnx.privileged" .) (has .Values.cvm.tee (list "sev-snp" "tdx")) }}
# The whole of it: below /sys nothing can be made to mount a part of it on.
- name: configfs
  hostPath: {path: /sys/kernel/config, type: Directory}
{{- end }}
{{- end }}
