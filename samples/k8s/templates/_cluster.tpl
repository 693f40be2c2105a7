{{/* What the TEE needs of a node. Only `helm install` and `upgrade` see the cluster; for `helm template` it is empty. */}}
{{- define "confonnx.checkNodes" -}}
{{- $nodes := list }}
{{- $needed := include "confonnx.devices" . | fromYaml | keys }}
{{- if and .Values.checkNodes $needed }}
{{- $nodes = (lookup "v1" "Node" "" "").items | default list }}
{{- end }}
{{- range $resource := $needed | sortAlpha }}
{{- $offered := false }}
{{- range $nodes }}
{{- if ne (get (.status.allocatable | default dict) $resource | default "0" | toString) "0" }}{{ $offered = true }}{{ end }}
{{- end }}
{{- if and $nodes (not $offered) }}
{{- $fix := ternary "On AKS: az aks enable-addons --addons confcom, and az aks nodepool add with a DCsv3 size" "Install the plugin, or set cvm.deviceAccess=privileged" (eq $.Values.tee "sgx") }}
{{- fail (printf "none of the cluster's nodes (%d) offers %s: there is none with this TEE, or its device plugin does not run (kubectl get pods --namespace kube-system). %s. If nodes come only when pods wait for them, set checkNodes=false." (len $nodes) $resource $fix) }}
{{- end }}
{{- end }}
{{- end }}
