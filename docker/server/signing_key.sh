# shellcheck shell=bash
# Sourced by build_image.sh: the key that signs the enclave. enclave.pem is made where there is none, enclave.pub.pem is
# its public half. SGX takes RSA-3072 with exponent 3 and nothing else (Intel SDM vol. 3D, SIGSTRUCT).

command -v openssl >/dev/null || fail "openssl is not installed; it makes and reads enclave.pem"
if [ ! -e enclave.pem ]; then
    (umask 077 && openssl genrsa -3 -out enclave.pem 3072 2>/dev/null) || fail "openssl could not make enclave.pem"
    echo "made enclave.pem, the key that signs your enclaves: keep it secret, and keep it" >&2
fi
key=$(openssl rsa -in enclave.pem -passin pass: -noout -text 2>/dev/null) ||
    fail "enclave.pem: expected an RSA private key in PEM without a password; found something else." \
        "Make one with: openssl genrsa -3 -out enclave.pem 3072"
{ grep -q '(3072 bit' <<<"$key" && grep -q '^publicExponent: 3 (0x3)' <<<"$key"; } ||
    fail "enclave.pem: expected an RSA key of 3072 bits with exponent 3; found" \
        "$(grep -oE '\([0-9]+ bit' <<<"$key" | tr -d '(')s, $(grep publicExponent <<<"$key")." \
        "Make one with: openssl genrsa -3 -out enclave.pem 3072"
openssl rsa -in enclave.pem -passin pass: -pubout -out enclave.pub.pem 2>/dev/null ||
    fail "openssl could not write enclave.pub.pem"
