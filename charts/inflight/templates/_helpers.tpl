{{/* Labels of everything. Called with (dict "context" $ "component" "router"). */}}
{{- define "inflight.labels" -}}
{{ include "inflight.selector" . }}
app.kubernetes.io/part-of: inflight
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name .context.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels that pick one component's pods: they never change. */}}
{{- define "inflight.selector" -}}
app.kubernetes.io/name: inflight
app.kubernetes.io/instance: {{ .context.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* A whole image reference. Called with (dict "context" $ "image" .Values.images.router). */}}
{{- define "inflight.image" -}}
{{- $name := .image.repository -}}
{{- with .context.Values.image.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end -}}
{{- if .image.digest -}}
{{ $name }}@{{ .image.digest }}
{{- else -}}
{{ $name }}:{{ .image.tag | default .context.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Who scales: without rights on the whole cluster there can be no APIService of ours. */}}
{{- define "inflight.metricsApiMode" -}}
{{- if and .Values.watchNamespaces (eq .Values.metricsApi.mode "builtin") }}none{{ else }}{{ .Values.metricsApi.mode }}{{ end -}}
{{- end }}

{{/* Whether the operator makes the installation's certificates itself. */}}
{{- define "inflight.makesCertificates" -}}
{{- and .Values.certificates.generate (not .Values.certManager.enabled) -}}
{{- end }}

{{/*
One component's pods on different nodes and in different zones, where there are several. By affinity: of several spread
constraints the scheduler heeds none on nodes that lack one of the labels, and zones are often not labelled.
*/}}
{{- define "inflight.spread" -}}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      {{- range $key, $weight := dict "kubernetes.io/hostname" 100 "topology.kubernetes.io/zone" 50 }}
      - weight: {{ $weight }}
        podAffinityTerm:
          topologyKey: {{ $key }}
          labelSelector:
            matchLabels:
              {{- include "inflight.selector" $ | nindent 14 }}
      {{- end }}
{{- end }}

{{/* What the restricted Pod Security Standard wants of a pod. */}}
{{- define "inflight.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* What it wants of a container, and a read-only root besides. */}}
{{- define "inflight.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where pods may run and how important they are. Called with (dict "context" $ "part" .Values.router). */}}
{{- define "inflight.scheduling" -}}
{{- with .context.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* The rules of the operator in the namespaces that it serves. Golden copy: tests/contract/golden/rbac.yaml. */}}
{{- define "inflight.operatorRules" -}}
- apiGroups: [serving.inflight.dev]
  resources: [modeldeployments]
  verbs: [list, watch]
- apiGroups: [serving.inflight.dev]
  resources: [modeldeployments/status]
  verbs: [patch]
- apiGroups: [apps]
  resources: [deployments, controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
# The size of a new revision; every later one is the HPA's to write.
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
# Where the operator scales by itself it makes none; those of an earlier mode go.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [{{ if eq (include "inflight.metricsApiMode" .) "none" }}list, watch, delete{{ else }}get, list, watch, create, patch, delete{{ end }}]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
# Pods are read only when a revision does not become ready, or to ask its first one for its model's digest.
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
{{- if .Values.operator.idlestFirst }}
# Marks the idlest of pods that are too many, so that they leave first. Where it is for all namespaces, a policy allows
# nothing else.
- apiGroups: [""]
  resources: [pods]
  verbs: [patch]
{{- end }}
# Tells a revision's later pods the first one's digest. Nobody's ConfigMap can be read or changed with this.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}

{{/* The rules of the operator in its own namespace: who leads, where that one is, and the installation's certificates. */}}
{{- define "inflight.ownRules" -}}
# "create" can't be limited to a name; everything else is.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [inflight-operator]
  verbs: [get, update]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [create]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  resourceNames: [inflight-operator]
  verbs: [get, patch]
{{- if and .Values.watchNamespaces (not (has .Release.Namespace .Values.watchNamespaces)) }}
# Elsewhere the rules above give these two as well. What the operator makes for itself is owned by this Service, so that
# it goes with the installation.
- apiGroups: [""]
  resources: [services]
  resourceNames: [inflight-operator]
  verbs: [get]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create]
{{- end }}
# What a router serves that starts while no operator answers.
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [inflight-last-good]
  verbs: [get, patch]
{{- if eq (include "inflight.makesCertificates" .) "true" }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [inflight-ca, inflight-tls]
  verbs: [get, update]
{{- end }}
{{- end }}

{{/* The rules for people: ModelDeployments and what scales them, to look at. */}}
{{- define "inflight.viewRules" -}}
- apiGroups: [serving.inflight.dev]
  resources: [modeldeployments]
  verbs: [get, list, watch]
- apiGroups: [serving.inflight.dev]
  resources: [modeldeployments/status]
  verbs: [get]
- apiGroups: [custom.metrics.k8s.io]
  resources: [deployments.apps/inflight_requests]
  verbs: [get]
{{- end }}

{{/* A NetworkPolicy's egress rule for DNS, wherever the cluster has it. */}}
{{- define "inflight.dnsEgress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}

{{/* The peers of a NetworkPolicy that are model servers in the namespaces that are served. */}}
{{- define "inflight.modelServers" -}}
- namespaceSelector:
    {{- with .Values.watchNamespaces }}
    matchExpressions:
      - {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson . }}}
    {{- else }} {}
    {{- end }}
  podSelector:
    matchLabels:
      app.kubernetes.io/name: model-server
      app.kubernetes.io/part-of: inflight
{{- end }}
