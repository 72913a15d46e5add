#!/bin/sh
# Makes the certificates of an installation by install.yaml: a private authority, and one certificate of it for the
# operator and the routers. Run it once, with kubectl pointing at the cluster; an existing Secret is left alone.
# Needs openssl 3 and kubectl (KUBECTL names another program or adds options).
set -eu
umask 077
KUBECTL=${KUBECTL:-kubectl}
namespace=${1:-inflight-system}
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"

if $KUBECTL -n "$namespace" get secret inflight-tls >/dev/null 2>&1; then
    $KUBECTL -n "$namespace" get secret inflight-tls -o 'jsonpath={.data.ca\.crt}' | openssl base64 -d -A >ca.crt
    echo "Secret inflight-tls exists already and stays as it is"
else
    # A configuration of our own: the distribution's would mark every certificate as an authority.
    printf '[req]\ndistinguished_name = dn\n[dn]\n' >openssl.cnf
    new="openssl req -x509 -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 3650"
    $new -keyout ca.key -out ca.crt -subj /CN=inflight \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign 2>/dev/null
    $new -keyout tls.key -out tls.crt -CA ca.crt -CAkey ca.key -subj /CN=inflight-operator \
        -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth,clientAuth \
        -addext "subjectAltName=DNS:inflight-operator.$namespace.svc,DNS:inflight-router.$namespace.svc" 2>/dev/null
    $KUBECTL -n "$namespace" create secret generic inflight-tls --type kubernetes.io/tls \
        --from-file=ca.crt --from-file=tls.crt --from-file=tls.key
fi

# By the authority the API server recognises the operator's metrics API.
$KUBECTL patch apiservice v1beta2.custom.metrics.k8s.io --type merge \
    --patch "{\"spec\": {\"caBundle\": \"$(openssl base64 -A <ca.crt)\"}}"
