# The base of our images where there is no registry: Debian and its Python, made by mmdebstrap.
FROM scratch
ADD rootfs.tar /
ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8
