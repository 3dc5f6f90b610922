/* C99's complex functions for a Wine whose ucrtbase.dll has stubs in their place ("unimplemented
 * function ucrtbase.dll.crealf"): NumPy calls them when it is imported.
 *
 * Loading this DLL overwrites each stub with a jump to the function of the compiler's own library.
 * Microsoft's `long double` is a `double`, so the functions with an `l` jump where those without do.
 */
#include <complex.h>
#include <string.h>
#include <windows.h>

#define ALL(name) {#name, name}, {#name "f", name##f}, {#name "l", name}

static const struct {
    const char *name;
    void *function;
} FUNCTIONS[] = {
    ALL(cabs),  ALL(cacos), ALL(cacosh), ALL(carg),  ALL(casin), ALL(casinh), ALL(catan),
    ALL(catanh), ALL(ccos), ALL(ccosh),  ALL(cexp),  ALL(cimag), ALL(clog),   ALL(conj),
    ALL(cpow),  ALL(cproj), ALL(creal),  ALL(csin),  ALL(csinh), ALL(csqrt),  ALL(ctan),
    ALL(ctanh),
};

static void jump_to(BYTE *stub, void *function)
{
    BYTE code[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0}; /* mov rax, …; jmp rax */
    DWORD before;

    memcpy(code + 2, &function, sizeof function);
    if (VirtualProtect(stub, sizeof code, PAGE_EXECUTE_READWRITE, &before)) {
        memcpy(stub, code, sizeof code);
        VirtualProtect(stub, sizeof code, before, &before);
    }
}

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *reserved)
{
    HMODULE runtime = GetModuleHandleA("ucrtbase.dll");

    if (reason != DLL_PROCESS_ATTACH || runtime == NULL)
        return TRUE;
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++) {
        BYTE *stub = (BYTE *)GetProcAddress(runtime, FUNCTIONS[i].name);
        if (stub != NULL)
            jump_to(stub, FUNCTIONS[i].function);
    }
    return TRUE;
}
