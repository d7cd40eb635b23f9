#include "cli/service.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SYMBOL "fero_service_v1"

/* 0, or an errno: the loader's own words for it are worse. */
static int read_error(const char *path)
{
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    int err = fstat(fd, &about) < 0 ? errno : 0;
    close(fd);
    return err == 0 && S_ISDIR(about.st_mode) ? EISDIR : err;
}

/*
 * Whether the file ends before what it says it has: the loader maps that without a look, and the
 * process dies of the first page that is not there. What is no ELF is left to the loader.
 */
static bool is_cut(const char *path)
{
    Elf64_Ehdr head;
    Elf64_Phdr part;
    struct stat about;
    bool cut = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool is_elf = fstat(fd, &about) == 0 && pread(fd, &head, sizeof head, 0) == sizeof head &&
                  memcmp(head.e_ident, ELFMAG, SELFMAG) == 0 &&
                  head.e_ident[EI_CLASS] == ELFCLASS64 && head.e_phentsize == sizeof part;
    for (uint32_t i = 0; is_elf && !cut && i < head.e_phnum; i++) {
        off_t at = (off_t)(head.e_phoff + i * sizeof part);
        cut = pread(fd, &part, sizeof part, at) != sizeof part ||
              (part.p_type == PT_LOAD && part.p_offset + part.p_filesz > (uint64_t)about.st_size);
    }
    close(fd);
    return cut;
}

/* A name without a slash would be looked for among the system's libraries. */
static void *open_object(const char *path)
{
    if (strchr(path, '/') != NULL) return dlopen(path, RTLD_NOW | RTLD_LOCAL);
    size_t bytes = strlen(path) + 3;
    char *here = malloc(bytes);
    if (here == NULL) return NULL;
    snprintf(here, bytes, "./%s", path);
    void *object = dlopen(here, RTLD_NOW | RTLD_LOCAL);
    free(here);
    return object;
}

static int check(const struct command *command, const char *path, const fero_service *about)
{
    if (about == NULL) {
        complain(command, "--handler %s exports no service: define one with FERO_SERVICE of fero.h",
                 path);
        return STATUS_USAGE;
    }
    if (about->abi == FERO_SERVICE_ABI && about->size == sizeof *about) return STATUS_OK;
    complain(
        command,
        "--handler %s was built for ABI %u (%u bytes), but this is ABI %u (%zu bytes): build it "
        "with the fero.h of fero %s",
        path, about->abi, about->size, FERO_SERVICE_ABI, sizeof *about, FERO_VERSION);
    return STATUS_USAGE;
}

int service_load(struct service *service, const struct command *command, const char *path)
{
    *service = (struct service){NULL, NULL};
    int err = read_error(path);
    if (err != 0) {
        complain(command, "--handler %s cannot be read: %s", path, strerror(err));
        return STATUS_USAGE;
    }
    if (is_cut(path)) {
        complain(command, "--handler %s is cut short: build or copy it again", path);
        return STATUS_USAGE;
    }
    service->object = open_object(path);
    if (service->object == NULL) {
        complain(
            command,
            "--handler %s is no shared object that can be loaded (%s): build it with cc -shared "
            "-fPIC",
            path, dlerror());
        return STATUS_USAGE;
    }
    service->about = dlsym(service->object, SYMBOL);
    int status = check(command, path, service->about);
    if (status == STATUS_OK && service->about->init != NULL &&
        (err = service->about->init()) != 0) {
        complain(command, "--handler %s: the service \"%s\" did not start: %s", path,
                 service->about->name != NULL ? service->about->name : "", fero_strerror(err));
        status = STATUS_NOT_FOUND;
    }
    if (status == STATUS_OK) return STATUS_OK;
    dlclose(service->object);
    service->object = NULL;
    return status;
}

void service_unload(struct service *service)
{
    if (service->object == NULL) return;
    if (service->about->deinit != NULL) service->about->deinit();
    dlclose(service->object);
    service->object = NULL;
}
