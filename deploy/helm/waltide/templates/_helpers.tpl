{{- define "waltide.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "waltide.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "waltide.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "waltide.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "waltide.selector" -}}
app.kubernetes.io/name: {{ include "waltide.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "waltide.labels" -}}
{{ include "waltide.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "waltide.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "waltide.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "waltide.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "waltide.configMap" -}}
{{- default (include "waltide.fullname" .) .Values.existingConfigMap }}
{{- end }}

{{/* What the restricted Pod Security Standard asks of a pod. */}}
{{- define "waltide.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* What it asks of a container, and a file system that nobody writes to. */}}
{{- define "waltide.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The kubelet takes any certificate. */}}
{{- define "waltide.probeScheme" -}}
{{- if .Values.http.tlsSecret }}, scheme: HTTPS{{ end }}
{{- end }}

{{- define "waltide.env" -}}
- name: WALTIDE_CONFIG
  value: /etc/waltide/waltide.yaml
- name: WALTIDE_HTTP__LISTEN
  value: {{ printf "0.0.0.0:%d" (int .Values.http.port) | quote }}
{{- if .Values.http.tlsSecret }}
- name: WALTIDE_HTTP__TLS__CERTIFICATE
  value: /run/secrets/waltide-http/tls.crt
- name: WALTIDE_HTTP__TLS__KEY
  value: /run/secrets/waltide-http/tls.key
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "waltide.mounts" -}}
- name: config
  mountPath: /etc/waltide
  readOnly: true
- name: spool
  mountPath: /var/lib/waltide
{{- if .Values.schemas.claim }}
- name: schemas
  mountPath: /var/lib/waltide-schemas
{{- end }}
{{- if .Values.http.tlsSecret }}
- name: http-tls
  mountPath: /run/secrets/waltide-http
  readOnly: true
{{- end }}
{{- range $number, $secret := .Values.secrets }}
- name: secret-{{ $number }}
  mountPath: /run/secrets/waltide/{{ $secret.as }}
  readOnly: true
{{- end }}
{{- end }}

{{- define "waltide.volumes" -}}
- name: config
  configMap:
    name: {{ include "waltide.configMap" . }}
- name: spool
  {{- if .Values.spool.volume }}
  {{- toYaml .Values.spool.volume | nindent 2 }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .Values.spool.sizeLimit }}
  {{- end }}
{{- if .Values.schemas.claim }}
- name: schemas
  persistentVolumeClaim:
    claimName: {{ .Values.schemas.claim }}
{{- end }}
{{- with .Values.http.tlsSecret }}
- name: http-tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- range $number, $secret := .Values.secrets }}
- name: secret-{{ $number }}
  secret:
    secretName: {{ $secret.name }}
    # For the group that the pod runs as.
    defaultMode: 0440
{{- end }}
{{- end }}
